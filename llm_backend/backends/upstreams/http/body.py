"""What goes out: whole or in pieces, as fast as it is taken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from llm_backend.backends.relayed import Headers

__all__ = ["Body", "Patience", "data_of", "length_of"]

Body = bytes | AsyncIterator[bytes]

_PIECE_BYTES = 256 * 1024
_WHOLE_BYTES = 1024 * 1024  # larger bodies go out in pieces, so that the loop is never held up


class Patience:
    """Restarts a deadline with every piece the upstream takes; waiting for the client is free."""

    def __init__(self, deadline: asyncio.Timeout, seconds: float) -> None:
        self._deadline = deadline
        self._seconds = seconds

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces, as they are; each one that is taken restarts the deadline."""
        self._reschedule(None)
        async for piece in pieces:
            self._reschedule(self._seconds)
            yield piece
            self._reschedule(None)
        self._reschedule(self._seconds)

    def _reschedule(self, seconds: float | None) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the answer came before the body's end: nothing to restart
            self._deadline.reschedule(None if seconds is None else now + seconds)


def length_of(body: Body, headers: Headers) -> int | None:
    """The bytes of the body; None where there is none, or where they are not known before."""
    if isinstance(body, bytes):
        return len(body) if body else None
    given = [value for name, value in headers if name.lower() == b"content-length"]
    return int(given[0]) if given and given[0].isdigit() else None


def data_of(body: Body, patience: Patience) -> bytes | AsyncIterator[bytes] | None:
    """The body as the HTTP client takes it."""
    if not isinstance(body, bytes):
        return patience.over(body)
    return patience.over(_pieces(body)) if len(body) > _WHOLE_BYTES else body or None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
