"""MCP server with the vector stores, files and models of this server, at `/mcp`.

endpoint.py      the operation
protocol.py      tools and resources in the library's terms: the only module that imports it
tools.py         tools as requests of this server's own operations
"""
