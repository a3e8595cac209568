"""Inner HTTP exchange, of a WebSocket message for instance: sent to the application as a request of
its own, with the same checks and limits; the answer is read as a stream.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope

from llm_backend.controllers.internal.internal_request import body_channel, json_post
from llm_backend.errors import Internal, error_body
from llm_backend.sse import Decoder

log = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

NOTHING: Mapping[str, Any] = {}

_PIECES = 16  # of an answer, buffered for a slow reader
_HANDSHAKE_HEADERS = (
    b"sec-websocket-", b"connection", b"upgrade", b"content-", b"transfer-encoding", b"accept",
    b"expect",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InnerAnswer:
    """An answer that has begun: its status and its body in chunks."""

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]

    async def events(self) -> AsyncGenerator[str, None]:
        """Yields the data of its events."""
        decoder = Decoder()
        async for piece in self.pieces:
            for event in decoder.feed(piece):
                yield event.data

    async def error(self) -> Mapping[str, Any]:
        """Returns the error object of an answer with an error status."""
        body = b"".join([piece async for piece in self.pieces])
        with suppress(orjson.JSONDecodeError):
            body_fields = orjson.loads(body)
            if isinstance(body_fields, dict) and isinstance(body_fields.get("error"), dict):
                error: Mapping[str, Any] = body_fields["error"]
                return error
        return error_body(Internal("The request failed without saying why."))["error"]


@asynccontextmanager
async def open_exchange(
    app: ASGIApp,
    path: str,
    headers: Headers,
    body: bytes,
    *,
    method: str = "POST",
    query: bytes = b"",
    content_type: bytes = b"application/json",
    state: Mapping[str, Any] = NOTHING,
) -> AsyncIterator[InnerAnswer]:
    """Opens an exchange once the answer has begun; leaving the context disconnects the client. A
    `caller` in the `state` is authenticated already."""
    request_headers = [
        (name, value) for name, value in headers if not name.startswith(_HANDSHAKE_HEADERS)
    ]
    scope = {
        **json_post(
            path, body, headers=request_headers, state=dict(state), content_type=content_type
        ),
        "method": method,
        "query_string": query,
    }
    exchange = _InnerExchange()
    task = asyncio.create_task(_send_request(app, scope, body_channel(body), exchange))
    try:
        start = await exchange.wait_for_start()
        async with aclosing(exchange.pieces()) as pieces:
            yield InnerAnswer(status=start["status"], headers=start["headers"], pieces=pieces)
    finally:
        task.cancel()
        (failure,) = await asyncio.gather(task, return_exceptions=True)
        # An exception that the application did not render is a bug.
        if isinstance(failure, Exception):
            log.error("request_failed", exc_info=failure)


async def _send_request(
    app: ASGIApp, scope: Scope, receive: Receive, exchange: "_InnerExchange"
) -> None:
    try:
        await app(scope, receive, exchange.send)
    finally:
        exchange.end()


class _InnerExchange:
    """Channel of an answer between the application and its reader."""

    def __init__(self) -> None:
        self._start: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._free_slots = asyncio.Semaphore(_PIECES)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start.set_result(message)
        elif message.get("body"):
            await self._free_slots.acquire()
            self._pieces.put_nowait(message["body"])

    def end(self) -> None:
        if not self._start.done():
            self._start.set_result({"status": 500, "headers": []})
        self._pieces.put_nowait(None)

    async def wait_for_start(self) -> Message:
        return await self._start

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        while (piece := await self._pieces.get()) is not None:
            self._free_slots.release()
            yield piece
