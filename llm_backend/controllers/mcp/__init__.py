"""MCP server with the vector stores, files and models of this server, at `/mcp`.

endpoint.py           the operation
protocol.py           tools and resources in the library's terms: the only one that imports it
tools.py              tools as requests of this server's own operations
permitted_servers.py  tools of other servers, which the settings permit
"""
