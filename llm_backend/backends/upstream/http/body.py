"""What goes out: whole or in pieces, as fast as it is taken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from llm_backend.backends.upstream.headers import Headers

__all__ = ["PATIENCE", "Body", "BodyTimeout", "data_of", "length_of"]

Body = bytes | AsyncIterator[bytes]

_PIECE_BYTES = 256 * 1024
_WHOLE_BYTES = 1024 * 1024  # larger bodies go out in pieces, so that the loop is never held up


class BodyTimeout:
    """A deadline for what is asked within its `async with`. It begins with the connection, and
    again with every piece that the upstream takes: connecting has a deadline of its own, and
    waiting for the client is free. Raises `TimeoutError`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._deadline.__aenter__()
        self._before = PATIENCE.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        PATIENCE.reset(self._before)
        await self._deadline.__aexit__(kind, error, trace)

    @property
    def is_running(self) -> bool:
        """Whether it is the upstream that is waited for, not a connection and not the client."""
        return self._deadline.when() is not None

    def wait(self) -> None:
        """There is no connection yet."""
        if self.is_running:
            self._reschedule(None)

    def begin(self) -> None:
        """There is one."""
        self._reschedule(self._seconds)

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces, as they are; each one that is taken restarts the deadline."""
        self.wait()
        async for piece in pieces:
            self.begin()
            yield piece
            self.wait()
        self.begin()

    def _reschedule(self, seconds: float | None) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the answer came before the body's end: nothing to restart
            self._deadline.reschedule(None if seconds is None else now + seconds)


PATIENCE: ContextVar[BodyTimeout] = ContextVar("patience")
"""That of what is being asked, for who makes the connection."""


def length_of(body: Body, headers: Headers) -> int | None:
    """The bytes of the body; None where there is none, or where they are not known before."""
    if isinstance(body, bytes):
        return len(body) if body else None
    given = [value for name, value in headers if name.lower() == b"content-length"]
    return int(given[0]) if given and given[0].isdigit() else None


def data_of(body: Body, patience: BodyTimeout) -> bytes | AsyncIterator[bytes] | None:
    """The body as the HTTP client takes it."""
    if not isinstance(body, bytes):
        return patience.over(body)
    return patience.over(_pieces(body)) if len(body) > _WHOLE_BYTES else body or None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
