"""Internal requests, which the server sends to its own ASGI application in process, for example for
a WebSocket message. Routing, checks, errors and answers are the same as for clients.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope

from llm_backend import exact_json
from llm_backend.contract.body import BodyLimits, check_bounds, check_depth, replay_body
from llm_backend.error_bodies import error_body
from llm_backend.errors import Internal, InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.sse import Decoder

log = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

_NO_STATE: Mapping[str, Any] = {}

_PIECES = 16  # pieces of an answer that are buffered for a slow reader
_HANDSHAKE_HEADERS = (
    b"sec-websocket-", b"connection", b"upgrade", b"content-", b"transfer-encoding", b"accept",
    b"expect",
)  # fmt: skip


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Encodes the body of a request. Raises `InvalidRequest` for nesting beyond some 250 levels,
    which can be parsed but not written."""
    try:
        return exact_json.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def body_channel(body: bytes) -> Receive:
    """Returns a `receive` with the body and no disconnect: an internal client cancels instead."""
    return replay_body(body, _nothing_more)


async def _nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")


def parse_message(message: str | bytes, limits: BodyLimits) -> JsonObject:
    """Returns the JSON object of a message. Raises `InvalidRequest` for other messages and for
    nesting over the limit, `TooLarge` for a message over the limit."""
    body = message.encode() if isinstance(message, str) else message
    check_bounds(body, limits)
    try:
        event = exact_json.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The message is not JSON: {error}", code="invalid_json") from error
    if not isinstance(event, dict):
        raise InvalidRequest("A message must be a JSON object.", code="invalid_type")
    check_depth(event, body, limits.json_depth)
    return event


@dataclass(frozen=True, kw_only=True)
class InternalAnswer:
    """An answer that has begun: its status and its body in chunks. `is_complete` returns
    True after the last chunk if the answer was sent to its end."""

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]
    is_complete: Callable[[], bool]

    async def events(self) -> AsyncGenerator[str, None]:
        """Yields the data of its events."""
        decoder = Decoder()
        async for piece in self.pieces:
            for event in decoder.feed(piece):
                yield event.data

    async def error(self) -> Mapping[str, Any]:
        """Returns the error object of an answer with an error status."""
        body = b"".join([piece async for piece in self.pieces])
        error = (exact_json.parse_object(body) or {}).get("error")
        if isinstance(error, dict):
            return error
        return error_body(Internal("The request failed without a reason."))["error"]


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
    state: Mapping[str, Any] = _NO_STATE,
) -> AsyncIterator[InternalAnswer]:
    """Sends a request and yields its answer once that has begun; leaving the context cancels the
    request. A `caller` in the `state` is authenticated already."""
    request_headers = [
        (name, value) for name, value in headers if not name.startswith(_HANDSHAKE_HEADERS)
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [
            *request_headers,
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": None,
        "server": None,
        "state": dict(state),
    }
    exchange = _InternalExchange()
    task = asyncio.create_task(_send_request(app, scope, body_channel(body), exchange))
    try:
        start = await exchange.wait_for_start()
        async with aclosing(exchange.pieces()) as pieces:
            yield InternalAnswer(
                status=start["status"],
                headers=start["headers"],
                pieces=pieces,
                is_complete=lambda: exchange.is_complete,
            )
    finally:
        task.cancel()
        (failure,) = await asyncio.gather(task, return_exceptions=True)
        # An exception that the application did not render is a bug.
        if isinstance(failure, Exception):
            log.error("request_failed", exc_info=failure)


async def _send_request(
    app: ASGIApp, scope: Scope, receive: Receive, exchange: "_InternalExchange"
) -> None:
    try:
        await app(scope, receive, exchange.send)
    finally:
        exchange.end()


class _InternalExchange:
    """Channel of an answer between the application and its reader."""

    def __init__(self) -> None:
        self._start: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._free_pieces = asyncio.Semaphore(_PIECES)
        self.is_complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not self._start.cancelled():  # else the reader was cancelled at this very moment
                self._start.set_result(message)
            return
        if message.get("body"):
            await self._free_pieces.acquire()
            self._pieces.put_nowait(message["body"])
        self.is_complete = not message.get("more_body")

    def end(self) -> None:
        if not self._start.done():
            self._start.set_result({"status": 500, "headers": []})
        self._pieces.put_nowait(None)

    async def wait_for_start(self) -> Message:
        return await self._start

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        while (piece := await self._pieces.get()) is not None:
            self._free_pieces.release()
            yield piece
