"""MCP endpoint: the first message imports the library and starts its server, until the shutdown.

If the start fails, or the server ends, the next message starts it again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

Answer: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""Answers one HTTP request with a message."""


class McpEndpoint:
    """MCP endpoint. Its own tools send requests to the application given to `serve`; it also offers
    the tools of the servers at `urls`, which must answer within `timeout_s`. A file is read in
    pieces of at most `file_limit_bytes`, a message has at most `body_bytes`."""

    def __init__(
        self,
        *,
        urls: Sequence[str],
        timeout_s: float,
        list_timeout_s: float,
        file_limit_bytes: int,
        body_bytes: int,
    ) -> None:
        self._urls = urls
        self._timeout_s = timeout_s
        self._list_timeout_s = list_timeout_s
        self._file_limit_bytes = file_limit_bytes
        self._body_bytes = body_bytes
        self._app: ASGIApp
        self._running: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[Answer]

    @asynccontextmanager
    async def serve(self, app: ASGIApp) -> AsyncIterator[None]:
        """Serves messages within the context."""
        self._app = app
        try:
            yield
        finally:
            if self._running is not None:
                self._running.cancel()
                await asyncio.gather(self._running, return_exceptions=True)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one message."""
        if self._running is None or self._running.done():
            self._answer = asyncio.get_running_loop().create_future()
            self._running = asyncio.create_task(self._run())
        answer = await asyncio.shield(self._answer)
        await answer(scope, receive, send)

    async def _run(self) -> None:
        """Runs the library's server; its task group must be entered and left in one task."""
        try:
            # The library takes half a second and 55 MB.
            module = "llm_backend.controllers.mcp.protocol"
            protocol = await asyncio.to_thread(import_module, module)
            server = protocol.run_server(
                self._app,
                protocol.PermittedServers(
                    self._urls, timeout_s=self._timeout_s, list_timeout_s=self._list_timeout_s
                ),
                file_limit_bytes=self._file_limit_bytes,
                body_bytes=self._body_bytes,
            )
            async with server as answer:
                self._answer.set_result(answer)
                await asyncio.Event().wait()
        except Exception as error:
            if self._answer.done():
                raise
            self._answer.set_exception(error)
