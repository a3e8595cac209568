"""The tool `mcp`: calls tools of MCP servers while a response is answered.

Connects only to servers that the settings allow. A call that needs approval ends the response
with an approval request; the next response runs it if the client has approved it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson

from llm_backend import exact_json
from llm_backend.controllers.responses.loop.mcp_entry import (
    allows,
    check_entry,
    headers_of,
    needs_approval,
)
from llm_backend.controllers.responses.loop.mcp_items import (
    ApprovedCall,
    find_approved_calls,
    find_tool_list,
    messages_from,
    model_tool_name,
    new_item,
)
from llm_backend.controllers.responses.loop.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    ServerCall,
    ServerTool,
    Step,
    ToolContext,
    ToolKind,
)
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

# Imported only where it is used: the MCP library takes half a second and 55 MB.
if TYPE_CHECKING:
    from llm_backend.backends.mcp_server import McpServer

__all__ = ["McpKind"]

Item = Mapping[str, Any]


class McpKind(ToolKind):
    """Tool kind `mcp`: opens the tools of allowed servers; `urls` are the servers' addresses."""

    type = "mcp"
    items = ("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response")
    # The side effects of an MCP tool are not known.
    may_be_repeated = False

    def __init__(self, urls: Collection[str], *, timeout_s: float) -> None:
        self._urls = {url.rstrip("/") for url in urls}
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def open(self, asked: ToolContext) -> AsyncIterator[ServerTool]:
        """Opens the tools of one server. Their list comes from an earlier item of the
        conversation, or from the server. Raises `InvalidRequest` for a server that the settings
        do not allow."""
        check_entry(asked)
        url = self._allowed_url(asked)
        headers = headers_of(asked)
        module = await asyncio.to_thread(import_module, "llm_backend.backends.mcp_server")
        async with module.McpServer(url, headers, timeout_s=self._timeout_s) as server:
            listed = find_tool_list(asked)
            is_new = listed is None
            yield McpTools(asked, server, listed or await _list(asked, server), tells=is_new)

    def messages(self, item: Item) -> Sequence[JsonObject]:
        """Returns the chat messages of an `mcp` item."""
        return messages_from(item)

    def _allowed_url(self, asked: ToolContext) -> str:
        url = asked.tool.get("server_url")
        if url is None:
            raise InvalidRequest("`server_url` is missing.", param=f"{asked.where}.server_url")
        if url.rstrip("/") not in self._urls:
            raise InvalidRequest(
                f"This server may not speak to {url}: whoever runs it allows it with the setting "
                "`mcp_servers` (LLM_BACKEND_MCP_SERVERS).",
                param=f"{asked.where}.server_url",
            )
        return str(url)


class McpTools(ServerTool):
    """Tools of one MCP server for one response. `listing` is the item that lists them; `tells` is
    True if the item is new and has to be output."""

    type = "mcp"

    def __init__(
        self, asked: ToolContext, server: "McpServer", listing: Item, *, tells: bool
    ) -> None:
        self._label = asked.tool["server_label"]
        self._entry = asked.tool
        self._server = server
        self._listing = listing
        self._tells = tells
        allowed = [
            tool for tool in listing["tools"] if allows(asked.tool.get("allowed_tools"), tool)
        ]
        self._tools = {model_tool_name(self._label, tool["name"]): tool for tool in allowed}
        self.functions = [_function(name, asked.tool, tool) for name, tool in self._tools.items()]
        self._due = find_approved_calls(asked, self._label)
        for call in self._due:
            if call.name not in self._tools:
                raise InvalidRequest(
                    f"The call that `{call.request_id}` asks for is of a tool that is not offered.",
                    param=asked.where,
                )

    def told_first(self) -> Sequence[Step]:
        """Returns the steps of the tool list's item, if the item is new."""
        if not self._tells:
            return ()
        result = "failed" if self._listing.get("error") else "completed"
        return [
            CallBegan(item={**self._listing, "tools": [], "error": None}),
            CallProgress(kind="response.mcp_list_tools.in_progress"),
            CallProgress(kind=f"response.mcp_list_tools.{result}"),
            CallEnded(item=dict(self._listing)),
        ]

    def due(self) -> Sequence[ServerCall]:
        """Returns the calls that the client has approved and that have not been run."""
        return self._due

    async def run(self, call: ServerCall) -> AsyncGenerator[Step, None]:
        """Runs a tool call, or outputs a request for its approval."""
        tool = self._tools[call.name]
        what: JsonObject = {"server_label": self._label, "name": tool["name"]}
        request_id = call.request_id if isinstance(call, ApprovedCall) else None
        if request_id is None and needs_approval(self._entry.get("require_approval"), tool):
            item = {**new_item("mcp_approval_request"), **what, "arguments": call.arguments}
            yield CallBegan(item=item)
            yield CallEnded(item=item, awaits_client=True)
            return
        item = {**new_item("mcp_call"), **what, "approval_request_id": request_id, "output": None,
                "error": None}  # fmt: skip
        yield CallBegan(item={**item, "arguments": "", "status": "in_progress"})
        yield CallProgress(kind="response.mcp_call.in_progress")
        yield CallProgress(
            kind="response.mcp_call_arguments.delta", fields={"delta": call.arguments}
        )
        yield CallProgress(
            kind="response.mcp_call_arguments.done", fields={"arguments": call.arguments}
        )
        outcome = await _outcome_of(self._server, tool["name"], call.arguments)
        yield CallProgress(kind=f"response.mcp_call.{outcome['status']}")
        yield CallEnded(item={**item, "arguments": call.arguments, **outcome})

    def chosen(self, choice: Item) -> Collection[str]:
        """Returns all function names of this server, or the one that `tool_choice` names."""
        if choice["type"] != "mcp" or choice.get("server_label") != self._label:
            return ()
        if choice.get("name") is None:
            return self.names
        return [name for name, tool in self._tools.items() if tool["name"] == choice["name"]]


async def _list(asked: ToolContext, server: "McpServer") -> JsonObject:
    """Asks the server for its tools and returns them as an item; a failure leaves the list empty
    and sets `error`."""
    from llm_backend.backends.mcp_server import McpFailed

    item = {**new_item("mcp_list_tools"), "server_label": asked.tool["server_label"]}
    try:
        tools = await server.tools()
    except McpFailed as failed:
        return {**item, "tools": [], "error": str(failed)}
    shown = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": tool.input_schema,
            "annotations": tool.annotations,
        }
        for tool in tools
    ]
    return {**item, "tools": shown, "error": None}


def _function(name: str, entry: Item, tool: Item) -> JsonObject:
    about = [entry.get("server_description"), tool.get("description")]
    function = {
        "name": name,
        "description": "\n".join(text for text in about if text),
        "parameters": dict(tool["input_schema"]),
    }
    return {"type": "function", "function": function}


async def _outcome_of(server: "McpServer", name: str, arguments: str) -> JsonObject:
    """Runs the call and returns the result fields of its item: `status`, and `output` or
    `error`."""
    from llm_backend.backends.mcp_server import McpFailed, ToolRefused

    try:
        given = exact_json.loads(arguments)
        if not isinstance(given, dict):
            raise McpFailed("The arguments are not an object.", code=-32602)
        return {"status": "completed", "output": await server.call(name, given)}
    except ToolRefused as refused:
        content = [{"type": "text", "text": str(refused)}]
        error: JsonObject = {"type": "mcp_tool_execution_error", "content": content}
    except McpFailed as failed:
        is_http = failed.status is not None
        error = {
            "type": "http_error" if is_http else "mcp_protocol_error",
            "code": failed.status if is_http else failed.code,
            "message": str(failed),
        }
    except orjson.JSONDecodeError:
        message = "The arguments are not JSON."
        error = {"type": "mcp_protocol_error", "code": -32602, "message": message}
    return {"status": "failed", "error": error}
