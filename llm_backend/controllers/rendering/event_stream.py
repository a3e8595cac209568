"""Server-sent event streams (SSE), and streams of other forms, as answers."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llm_backend import exact_json
from llm_backend.controllers.rendering.closing_stream import ClosingStream
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, Internal
from llm_backend.sse import DONE, encode

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"

Chunk = Mapping[str, Any] | bytes
"""Data of one event, or the event itself, already encoded."""


def _error_event(error: ApiError) -> bytes:
    return encode(orjson.dumps(error_body(error)))


async def event_stream(
    chunks: AsyncGenerator[Chunk, None],
    *,
    ending: bytes = DONE,
    failure: Callable[[ApiError], bytes] = _error_event,
    media_type: str = EVENT_STREAM,
) -> StreamingResponse:
    """Returns a streaming response of the chunks as events, then `ending`.

    Chunks in bytes may have another `media_type`. An error before the first chunk is raised and
    gets a status code. A later error ends the stream with the event that `failure` returns.
    Awaiting the first chunk here starts `chunks`, which then releases its resources even if the
    client disconnects before anything is sent.
    """
    first = await anext(chunks, None)
    return _EventStream(first, chunks, ending, failure, media_type)


class _EventStream(ClosingStream):
    """Event stream that puts an error into the request's state, for middleware."""

    def __init__(
        self,
        first: Chunk | None,
        chunks: AsyncGenerator[Chunk, None],
        ending: bytes,
        failure: Callable[[ApiError], bytes],
        media_type: str,
    ) -> None:
        super().__init__(
            chunks,
            self._events(first, chunks, ending),
            media_type=media_type,
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._failure = failure
        self._state: MutableMapping[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._state = scope.setdefault("state", {})
        await super().__call__(scope, receive, send)

    async def _events(
        self, first: Chunk | None, chunks: AsyncGenerator[Chunk, None], ending: bytes
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(chunks):
            try:
                if first is not None:
                    yield _encode(first)
                async for chunk in chunks:
                    yield _encode(chunk)
            except ApiError as error:
                log.warning("stream_failed", extra={"code": error.code, "status": error.status})
                yield self._fail(error)
            except Exception:  # the error renderer of streams: a bug must not look like an end
                log.exception("stream_failed")
                message = "The server failed in the middle of the answer; its log says why."
                yield self._fail(Internal(message))
            else:
                yield ending

    def _fail(self, error: ApiError) -> bytes:
        self._state["error"] = error
        return self._failure(error)


def _encode(chunk: Chunk) -> bytes:
    return chunk if isinstance(chunk, bytes) else encode(exact_json.dumps(chunk))
