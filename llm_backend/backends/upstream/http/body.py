"""Request bodies: sent whole or streamed, with a timeout that restarts at each piece."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from llm_backend.backends.upstream.headers import Headers

Body = bytes | AsyncIterator[bytes]

_PIECE_BYTES = 256 * 1024
_WHOLE_BYTES = 1024 * 1024  # larger bodies are streamed, so that they do not block the event loop


class BodyTimeout:
    """Timeout of a request within its `async with`, until the answer's headers.

    It starts when the connection exists, and restarts with every piece of the body that the
    upstream accepts. Connecting has its own timeout, and waiting for the client has none. Raises
    `TimeoutError`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._deadline.__aenter__()
        self._before = BODY_TIMEOUT.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        BODY_TIMEOUT.reset(self._before)
        await self._deadline.__aexit__(kind, error, trace)

    @property
    def is_running(self) -> bool:
        """True while waiting for the upstream, not for a connection or the client."""
        return self._deadline.when() is not None

    def pause(self) -> None:
        """Pauses the timeout."""
        if self.is_running:
            self._reschedule(None)

    def restart(self) -> None:
        """Restarts the timeout."""
        self._reschedule(self._seconds)

    async def wrap(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields the pieces unchanged; each accepted one restarts the timeout."""
        self.pause()
        async for piece in pieces:
            self.restart()
            yield piece
            self.pause()
        self.restart()

    def _reschedule(self, seconds: float | None) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the answer came before the body's end: nothing to restart
            self._deadline.reschedule(None if seconds is None else now + seconds)


BODY_TIMEOUT: ContextVar[BodyTimeout] = ContextVar("body_timeout")
"""Timeout of the current request, for the connector."""


def length_of(body: Body, headers: Headers) -> int | None:
    """Returns the length of the body in bytes; None if it is empty or unknown."""
    if isinstance(body, bytes):
        return len(body) if body else None
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


def data_of(body: Body, body_timeout: BodyTimeout) -> bytes | AsyncIterator[bytes] | None:
    """Returns the body in the form that the HTTP client expects."""
    if not isinstance(body, bytes):
        return body_timeout.wrap(body)
    return body_timeout.wrap(_pieces(body)) if len(body) > _WHOLE_BYTES else body or None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
