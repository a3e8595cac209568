"""Answer of one response: rounds of the model and of the tools that the server runs.

The operation opens a `ResponseTurn`. The turn reads a `ResponseRun`, which feeds the events of a
`ToolLoop` to the response's state. The loop builds the chat of the next round from the items of
that state. The loop reads the model's `CheckedAnswer`. Server tools
(`controllers/services/server_tools.py`) are `file_search`, `mcp` and `image_generation`;
`app/search.py` registers them.

response_turn.py      streamed or whole, and stored
response_run.py       events of the loop as events of the response
tool_loop.py          rounds of the model and of server tools
response_model.py     interface of a model
reasoning_summary.py  summaries of reasoning
file_search_tool.py   searches of vector stores during a response
image_tool.py         images drawn during a response
mcp_tools.py          tools of MCP servers
mcp_entry.py          validation of an `mcp` entry
mcp_items.py          items of MCP tools
"""
