"""MCP client over streamable HTTP: lists and calls the tools of a server.

This module and `controllers/mcp/protocol.py` import `mcp`, which takes half a second and 55 MB.
Import both modules on first use, not at start, and in a thread.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx2
import mcp
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED

from llm_backend import exact_json
from llm_backend.json_types import JsonMapping

log = logging.getLogger(__name__)

MESSAGE_BYTES = 1 << 20  # of one answer of a server
TOOLS_LIMIT = 128  # the limit of a chat's functions
CLOSE_S = 2.0  # time to close a session with a server
CANCELLED_CLOSE_S = 0.1  # the same if the caller was cancelled
# Of all connections: the certificates are read when this module is imported, in a thread.
_TLS_CONTEXT = httpx2.create_ssl_context()


@dataclass(frozen=True, kw_only=True)
class McpTool:
    """One tool of a server; `annotations` are MCP's hints besides the description."""

    name: str
    description: str | None
    input_schema: JsonMapping
    annotations: JsonMapping | None


class McpFailed(Exception):
    """Error of a server that is unreachable or rejects a request. `status` is the HTTP status if
    HTTP rejected it; `code` is the JSON-RPC code."""

    def __init__(self, message: str, *, code: int, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ToolRefused(Exception):
    """Error reported by a tool that was run, with a message for the model."""


class McpServer:
    """Connection to one third-party MCP server, opened on first use and closed at the end of the
    `async with`. No request takes longer than `timeout_s`."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._transport = _BoundedTransport()
        self._headers = dict(headers)
        self._connection: asyncio.Task[BaseException | None] | None = None
        self._client: asyncio.Future[mcp.Client] | None = None
        self._is_closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._connection is None:
            return
        self._is_closing.set()
        grace_s = CANCELLED_CLOSE_S if kind is asyncio.CancelledError else CLOSE_S
        try:
            if self._client is not None and self._client.done():  # else still opening
                await asyncio.wait([self._connection], timeout=grace_s)
        finally:
            self._connection.cancel()
            await asyncio.gather(self._connection, return_exceptions=True)

    async def tools(self) -> Sequence[McpTool]:
        """Lists all tools of the server. Raises `McpFailed`."""
        tools: list[McpTool] = []
        async with self._request() as client:
            cursor: str | None = None
            while True:
                page = await client.list_tools(cursor=cursor)
                tools += [_tool(one) for one in page.tools]
                if len(tools) > TOOLS_LIMIT:
                    raise McpFailed(f"The server has more than {TOOLS_LIMIT} tools.", code=_INVALID)
                cursor = page.next_cursor
                if cursor is None:
                    return tools

    async def call(self, name: str, arguments: JsonMapping) -> str:
        """Calls a tool and returns its output. Raises `McpFailed`, and `ToolRefused` if the tool
        failed."""
        async with self._request() as client:
            result = await client.call_tool(name, dict(arguments))
        text = "\n".join(_text(block) for block in result.content)
        if not result.content and result.structured_content is not None:
            text = exact_json.dumps(result.structured_content).decode()
        if result.is_error:
            raise ToolRefused(text)
        return text

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[mcp.Client]:
        """Yields the client for one request, with a timeout; translates errors to `McpFailed`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield await self._connect()
        except TimeoutError as error:
            message = f"The server did not answer within {self._timeout_s:g} seconds."
            raise McpFailed(message, code=_INTERNAL) from error
        except (mcp.MCPError, *_BROKEN) as error:
            raise await self._failure(_first_of_group(error)) from error

    async def _failure(self, error: BaseException) -> McpFailed:
        """Returns the error with the most specific cause known."""
        if isinstance(error, mcp.MCPError) and error.code == CONNECTION_CLOSED:
            error = await self._connection_error() or error
        status = self._transport.error_status
        if status is not None:
            return McpFailed(f"The server answered {status}.", code=_INTERNAL, status=status)
        code = error.code if isinstance(error, mcp.MCPError) else _INTERNAL
        message = error.message if isinstance(error, mcp.MCPError) else str(error)
        return McpFailed(message or type(error).__name__, code=code)

    async def _connection_error(self) -> BaseException | None:
        """Returns the error that closed the connection."""
        assert self._connection is not None, "there was a connection"
        await asyncio.wait([self._connection], timeout=CLOSE_S)
        return self._connection.result() if self._connection.done() else None

    async def _connect(self) -> mcp.Client:
        if self._client is None or self._connection is None or self._connection.done():
            self._client = asyncio.get_running_loop().create_future()
            self._transport = _BoundedTransport()
            # The library must close a connection in the task that opened it.
            self._connection = asyncio.create_task(self._keep_connected(self._client))
        return await asyncio.shield(self._client)

    async def _keep_connected(self, opened: "asyncio.Future[mcp.Client]") -> BaseException | None:
        """Keeps a connection open until `__aexit__`; returns the error that ended it before."""
        try:
            async with (
                httpx2.AsyncClient(
                    transport=self._transport,
                    headers={**self._headers, "accept-encoding": "identity"},
                    timeout=None,  # requests have their own; the server's event stream has none
                    trust_env=False,
                ) as http,
                mcp.Client(streamable_http_client(self._url, http_client=http)) as client,
            ):
                opened.set_result(client)
                await self._is_closing.wait()
        except Exception as error:  # else requests wait for the connection until their timeout
            failure = error
            if not isinstance(error, (mcp.MCPError, *_BROKEN)):
                log.exception("mcp_client_failed")
                failure = McpFailed(str(error) or type(error).__name__, code=_INTERNAL)
            if not opened.done():
                opened.set_exception(failure)
            return _first_of_group(error)
        return None


# Exceptions that the library passes on when a server is gone or sends invalid data.
_BROKEN = (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, RuntimeError, ExceptionGroup)
_INVALID, _INTERNAL = -32600, -32603  # JSON-RPC's codes


class _BoundedTransport(httpx2.AsyncBaseTransport):
    """HTTP transport that raises an error for too long an answer. `error_status` is that of the
    last answer, if it was an HTTP error without a JSON-RPC answer."""

    def __init__(self) -> None:
        self._http = httpx2.AsyncHTTPTransport(verify=_TLS_CONTEXT)
        self.error_status: int | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._http.handle_async_request(request)
        if request.method == "POST":
            is_error = response.status_code >= 400 and not _is_json(response)
            self.error_status = response.status_code if is_error else None
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.DecodingError("The server compressed an answer without a request for it.")
        assert isinstance(response.stream, httpx2.AsyncByteStream), "the transport is asynchronous"
        response.stream = _BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._http.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        remaining = MESSAGE_BYTES
        async for piece in self._stream:
            remaining -= len(piece)
            if remaining < 0:
                raise httpx2.ReadError(f"The server sent more than {MESSAGE_BYTES} bytes.")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_json(response: httpx2.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith("application/json")


def _tool(tool: Any) -> McpTool:
    annotations = tool.annotations
    return McpTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=annotations.model_dump(by_alias=True, exclude_none=True)
        if annotations
        else None,
    )


def _text(block: Any) -> str:
    """Converts a block of a tool's output to text; other media become a note that names them."""
    if block.type == "text":
        return str(block.text)
    if block.type == "resource_link":
        return str(block.uri)
    if block.type == "resource" and getattr(block.resource, "text", None) is not None:
        return str(block.resource.text)
    return f"[{block.type} that cannot be shown here]"


def _first_of_group(error: BaseException) -> BaseException:
    """Returns the first error in an exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
