"""Answer of one response: rounds of the model and of the tools that the server runs.

The operation opens a `ResponseTurn`. It reads a `ResponseRun`, which feeds the events of a
`ToolLoop` to the response's state. The loop reads the model's `CheckedAnswer`.

`response_turn.py`      streamed or whole, and stored
`response_run.py`       events of the loop as events of the response
`tool_loop.py`          rounds of the model and of server tools
`response_model.py`     interface of a model
`reasoning_summary.py`  summaries of reasoning
`server_tools.py`       interface of server tools
`mcp_tools.py`          tools of MCP servers
`mcp_entry.py`          validation of an `mcp` entry
`mcp_items.py`          items of MCP tools
"""
