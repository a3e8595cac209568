"""Tools and resources of this server in the terms of the MCP library.

No other module imports the server part of the library. The first message imports this module.
"""

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import mcp_types
from jsonschema_rs import validator_for
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.types import ASGIApp

from llm_backend import __version__, exact_json
from llm_backend.access.authentication.principal import Caller
from llm_backend.backends.mcp_server import TOOLS_LIMIT, McpFailed, McpTool, ToolRefused
from llm_backend.controllers.internal_requests import open_exchange
from llm_backend.controllers.mcp.permitted_servers import FORWARDED, PermittedServers
from llm_backend.controllers.mcp.tools import (
    Tool,
    ToolRequest,
    files_request,
    read_request,
    tools_of,
)
from llm_backend.controllers.services.mcp_endpoint import Answer
from llm_backend.errors import InvalidRequest, RangeNotSatisfiable

_FILES = "llm-backend://files/"
_UNAVAILABLE = "llm-backend/unavailable"  # metadata of the list of tools
_DROPPED_HEADERS = frozenset({b"idempotency-key", b"range", b"host"})
_Context = ServerRequestContext[Any, Any]


class _Refused(Exception):
    """Error of a request, with the sentence for the client."""


@asynccontextmanager
async def run_server(
    app: ASGIApp, servers: PermittedServers, *, file_limit_bytes: int, body_bytes: int
) -> AsyncIterator[Answer]:
    """Runs an MCP server over the application, with the tools of permitted servers, and yields the
    function that answers a message. The server keeps no sessions, so that any process can answer
    any message."""
    tools = _Tools(app, tools_of(file_limit_bytes=file_limit_bytes), servers, file_limit_bytes)
    server: Server[Any] = Server(
        "llm-backend",
        version=__version__,
        on_list_tools=tools.list_tools,
        on_call_tool=tools.call,
        on_list_resources=tools.list_files,
        on_read_resource=tools.read_file,
    )
    manager = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=body_bytes
    )
    async with manager.run():
        yield manager.handle_request


class _Tools:
    """Handlers of the library; each sends a request with the client's own key."""

    def __init__(
        self, app: ASGIApp, tools: list[Tool], servers: PermittedServers, file_limit_bytes: int
    ) -> None:
        self._app = app
        self._servers = servers
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self._validators = {tool.name: validator_for(tool.input_schema) for tool in tools}
        self._file_limit_bytes = file_limit_bytes

    async def list_tools(
        self, context: _Context, params: mcp_types.PaginatedRequestParams | None
    ) -> mcp_types.ListToolsResult:
        listed = [
            mcp_types.Tool(
                name=tool.name,
                description=tool.description,
                input_schema=tool.input_schema,
                annotations=mcp_types.ToolAnnotations(read_only_hint=tool.is_read_only),
            )
            for tool in self._tools.values()
        ]
        if not _may_forward(context):
            return mcp_types.ListToolsResult(tools=listed)
        permitted = await self._servers.list_tools(limit=TOOLS_LIMIT - len(listed))
        listed += [_describe(name, tool) for name, tool in permitted.tools.items()]
        meta = {_UNAVAILABLE: dict(permitted.failures)} if permitted.failures else None
        return mcp_types.ListToolsResult(tools=listed, _meta=meta)

    async def call(
        self, context: _Context, params: mcp_types.CallToolRequestParams
    ) -> mcp_types.CallToolResult:
        """Runs a tool. Its error is returned as a result, which the model can read."""
        tool, arguments = self._tools.get(params.name), params.arguments or {}
        if self._servers.has(params.name) and _may_forward(context):
            try:
                return _result(await self._servers.call(params.name, arguments))
            except (McpFailed, ToolRefused) as failure:
                return _result(str(failure), is_error=True)
        if tool is None:
            message = f"There is no tool `{params.name[:256]}`."
            raise MCPError(mcp_types.INVALID_PARAMS, message)
        for error in self._validators[tool.name].iter_errors(arguments):
            return _result(f"The arguments are wrong: {error.message[:1000]}", is_error=True)
        try:
            answer = tool.render(await self._send(context, tool.request(arguments)), arguments)
        except (_Refused, InvalidRequest) as error:
            return _result(str(error), is_error=True)
        return _result(answer)

    async def list_files(
        self, context: _Context, params: mcp_types.PaginatedRequestParams | None
    ) -> mcp_types.ListResourcesResult:
        page = await self._read_json(context, files_request(params.cursor if params else None))
        listed = [
            mcp_types.Resource(uri=f"{_FILES}{one['id']}", name=one["filename"], size=one["bytes"])
            for one in page["data"]
        ]
        cursor = page["last_id"] if page.get("has_more") else None
        return mcp_types.ListResourcesResult(resources=listed, next_cursor=cursor)

    async def read_file(
        self, context: _Context, params: mcp_types.ReadResourceRequestParams
    ) -> mcp_types.ReadResourceResult:
        """Returns the content of a file: text if it is UTF-8, else base64. Raises `MCPError` for a
        file that is too long."""
        uri = str(params.uri)
        if not uri.startswith(_FILES):
            raise MCPError(mcp_types.INVALID_PARAMS, f"There is no resource {uri[:256]}.")
        limit = self._file_limit_bytes
        request = read_request(uri.removeprefix(_FILES), 0, limit + 1)
        data = await self._read(context, request)
        if len(data) > limit:
            message = f"The file has more than {limit} bytes; read pieces of it with `read_file`."
            raise MCPError(mcp_types.INVALID_PARAMS, message)
        return mcp_types.ReadResourceResult(contents=[_contents(uri, data)])

    async def _read_json(self, context: _Context, request: ToolRequest) -> Any:
        return exact_json.loads(await self._read(context, request))

    async def _read(self, context: _Context, request: ToolRequest) -> bytes:
        try:
            return await self._send(context, request)
        except _Refused as error:
            raise MCPError(mcp_types.INVALID_PARAMS, str(error)) from error

    async def _send(self, context: _Context, request: ToolRequest) -> bytes:
        """Sends a request with the client's headers, and returns the body of the answer. Returns no
        bytes for a range that begins at the end of a file or after it."""
        assert isinstance(context.request, Request), "messages come over HTTP"
        sent = context.request.scope["headers"]
        headers = [pair for pair in sent if pair[0] not in _DROPPED_HEADERS]
        exchange = open_exchange(
            self._app,
            request.path,
            [*headers, *request.headers],
            request.body,
            method=request.method,
            query=request.query,
        )
        async with exchange as answer:
            if answer.status == RangeNotSatisfiable.status and request.byte_range is not None:
                return b""
            if answer.status >= 400:
                raise _Refused(str((await answer.error())["message"]))
            body = b"".join([piece async for piece in answer.pieces])
            if not answer.is_complete():
                raise _Refused("The answer broke off before its end; try again.")
            return body


def _may_forward(context: _Context) -> bool:
    """True unless the client is itself a server that forwards calls, or its project may not use
    `mcp`."""
    assert isinstance(context.request, Request), "messages come over HTTP"
    caller: Caller = context.request.scope["state"]["caller"]
    is_forbidden = caller.project is not None and "mcp" in caller.project.forbidden_tools
    return FORWARDED not in context.request.headers and not is_forbidden


def _describe(name: str, tool: McpTool) -> mcp_types.Tool:
    return mcp_types.Tool(
        name=name,
        description=tool.description,
        input_schema=dict(tool.input_schema),
        annotations=None
        if tool.annotations is None
        else mcp_types.ToolAnnotations.model_validate(tool.annotations),
    )


def _result(answer: Any, *, is_error: bool = False) -> mcp_types.CallToolResult:
    text = answer if isinstance(answer, str) else exact_json.dumps(answer).decode()
    return mcp_types.CallToolResult(
        content=[mcp_types.TextContent(text=text)],
        structured_content=None if isinstance(answer, str) else answer,
        is_error=is_error,
    )


def _contents(
    uri: str, data: bytes
) -> mcp_types.TextResourceContents | mcp_types.BlobResourceContents:
    try:
        return mcp_types.TextResourceContents(uri=uri, text=data.decode())
    except UnicodeDecodeError:
        return mcp_types.BlobResourceContents(uri=uri, blob=base64.b64encode(data).decode())
