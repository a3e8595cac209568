"""The tool `mcp`: calls tools of MCP servers while a response is answered.

Connects only to servers that the settings allow. A call that needs approval ends the response
with an approval request; the next response runs the call if the client has approved it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import orjson

from llm_backend import exact_json
from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.controllers.response_items.input_parts import Item
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
from llm_backend.controllers.services.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    ServerCall,
    ServerTool,
    ToolContext,
    ToolEvent,
    ToolKind,
)
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

# Imported only where it is used: the MCP library takes half a second and 55 MB.
if TYPE_CHECKING:
    from llm_backend.backends.mcp_server import McpServer


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
    async def open(self, context: ToolContext) -> AsyncIterator[ServerTool]:
        """Opens the tools of one server. Their list comes from an earlier item of the
        conversation, or from the server. Raises `InvalidRequest` for a server that the settings
        do not allow."""
        check_entry(context)
        url = self._allowed_url(context)
        headers = headers_of(context)
        module = await asyncio.to_thread(import_module, "llm_backend.backends.mcp_server")
        async with module.McpServer(url, headers, timeout_s=self._timeout_s) as server:
            listing = find_tool_list(context)
            is_new = listing is None
            yield McpTools(
                context, server, listing or await _list_tools(context, server), is_new=is_new
            )

    def messages(self, item: Item) -> Sequence[JsonObject]:
        """Returns the chat messages of an `mcp` item."""
        return messages_from(item)

    def _allowed_url(self, context: ToolContext) -> str:
        url = context.tool.get("server_url")
        if url is None:
            raise InvalidRequest("`server_url` is missing.", param=f"{context.where}.server_url")
        if url.rstrip("/") not in self._urls:
            raise InvalidRequest(
                f"This server may not connect to {url}: its operator allows it with the setting "
                "`mcp_servers` (LLM_BACKEND_MCP_SERVERS).",
                param=f"{context.where}.server_url",
            )
        return str(url)


class McpTools(ServerTool):
    """Tools of one MCP server for one response. `listing` is the item that lists them; `is_new` is
    True if the item is new and has to be output. Raises `InvalidRequest` if two of the allowed
    tools would have one name for the model."""

    type = "mcp"

    def __init__(
        self, context: ToolContext, server: "McpServer", listing: Item, *, is_new: bool
    ) -> None:
        self._label = context.tool["server_label"]
        self._entry = context.tool
        self._server = server
        self._listing = listing
        self._is_new_listing = is_new
        allowed = [
            tool for tool in listing["tools"] if allows(context.tool.get("allowed_tools"), tool)
        ]
        self._tools = {model_tool_name(self._label, tool["name"]): tool for tool in allowed}
        if len(self._tools) < len(allowed):
            raise InvalidRequest(
                f"Two tools of the server `{self._label}` have the same name for the model, which "
                f"is made of letters, digits, `-`, `_` and `.`, at most {FUNCTION_NAME_LENGTH} of "
                "them: name one of them in `allowed_tools`.",
                param=f"{context.where}.allowed_tools",
            )
        self.functions = [_function(name, context.tool, tool) for name, tool in self._tools.items()]
        self._approved_calls = find_approved_calls(context, self._label)
        for call in self._approved_calls:
            if call.name not in self._tools:
                raise InvalidRequest(
                    f"`{call.request_id}` is for a call to a tool that is not offered.",
                    param=context.where,
                )

    def initial_events(self) -> Sequence[ToolEvent]:
        """Returns the events of the tool list's item, if the item is new."""
        if not self._is_new_listing:
            return ()
        result = "failed" if self._listing.get("error") else "completed"
        return [
            CallBegan(item={**self._listing, "tools": [], "error": None}),
            CallProgress(kind="response.mcp_list_tools.in_progress"),
            CallProgress(kind=f"response.mcp_list_tools.{result}"),
            CallEnded(item=dict(self._listing)),
        ]

    def initial_calls(self) -> Sequence[ServerCall]:
        """Returns the calls that the client has approved and that have not been run."""
        return self._approved_calls

    async def run(self, call: ServerCall) -> AsyncGenerator[ToolEvent, None]:
        """Runs a tool call, or outputs a request for its approval."""
        tool = self._tools[call.name]
        common: JsonObject = {"server_label": self._label, "name": tool["name"]}
        request_id = call.request_id if isinstance(call, ApprovedCall) else None
        if request_id is None and needs_approval(self._entry.get("require_approval"), tool):
            item = {**new_item("mcp_approval_request"), **common, "arguments": call.arguments}
            yield CallBegan(item=item)
            yield CallEnded(item=item, awaits_client=True)
            return
        item = {**new_item("mcp_call"), **common, "approval_request_id": request_id, "output": None,
                "error": None}  # fmt: skip
        yield CallBegan(item={**item, "arguments": "", "status": "in_progress"})
        yield CallProgress(kind="response.mcp_call.in_progress")
        yield CallProgress(
            kind="response.mcp_call_arguments.delta", fields={"delta": call.arguments}
        )
        yield CallProgress(
            kind="response.mcp_call_arguments.done", fields={"arguments": call.arguments}
        )
        outcome = await _run_call(self._server, tool["name"], call.arguments)
        yield CallProgress(kind=f"response.mcp_call.{outcome['status']}")
        yield CallEnded(item={**item, "arguments": call.arguments, **outcome})

    def select_functions(self, choice: Item) -> Collection[str]:
        """Returns all function names of this server, or the one that `tool_choice` names."""
        if choice["type"] != "mcp" or choice.get("server_label") != self._label:
            return ()
        if choice.get("name") is None:
            return self.names
        return [name for name, tool in self._tools.items() if tool["name"] == choice["name"]]


async def _list_tools(context: ToolContext, server: "McpServer") -> JsonObject:
    """Asks the server for its tools and returns them as an item; a failure leaves the list empty
    and sets `error`."""
    from llm_backend.backends.mcp_server import McpFailed

    item = {**new_item("mcp_list_tools"), "server_label": context.tool["server_label"]}
    try:
        tools = await server.tools()
    except McpFailed as failed:
        return {**item, "tools": [], "error": str(failed)}
    descriptions = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": tool.input_schema,
            "annotations": tool.annotations,
        }
        for tool in tools
    ]
    return {**item, "tools": descriptions, "error": None}


def _function(name: str, entry: Item, tool: Item) -> JsonObject:
    about = [entry.get("server_description"), tool.get("description")]
    function = {
        "name": name,
        "description": "\n".join(text for text in about if text),
        "parameters": dict(tool["input_schema"]),
    }
    return {"type": "function", "function": function}


async def _run_call(server: "McpServer", name: str, arguments: str) -> JsonObject:
    """Runs the call and returns the result fields of its item: `status`, and `output` or
    `error`."""
    from llm_backend.backends.mcp_server import McpFailed, ToolRefused

    try:
        parsed = exact_json.loads(arguments)
        if not isinstance(parsed, dict):
            raise McpFailed("The arguments are not an object.", code=-32602)
        return {"status": "completed", "output": await server.call(name, parsed)}
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
