"""Request bodies: sent whole or in pieces, and the deadline of the answer to them."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter

from llm_backend.backends.upstream.headers import Headers
from llm_backend.backends.upstream.upstream_request import Body

_PIECE_BYTES = 256 * 1024
_WHOLE_BYTES = 1024 * 1024  # larger bodies are sent in pieces, which do not block the event loop


class AnswerDeadline:
    """Deadline of the upstream until the head of its answer; the connection fails with a timeout
    after it.

    It begins anew with each piece of the body, until the upstream has accepted the piece, and at
    the request's end. It does not run while a piece is awaited from the client.
    """

    def __init__(
        self, protocol: ResponseHandler, loop: asyncio.AbstractEventLoop, seconds: float
    ) -> None:
        self._protocol = protocol
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    @property
    def is_running(self) -> bool:
        """True while waiting for the upstream, not for the client."""
        return self._timer is not None

    def pause(self) -> None:
        """Pauses the deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def restart(self) -> None:
        """Starts the deadline again, with its whole time."""
        self.pause()
        if not self._is_over:
            self._timer = self._loop.call_later(self._seconds, _expire, self._protocol)

    def end(self) -> None:
        """Ends the deadline: the head has arrived, or is awaited no longer."""
        self.pause()
        self._is_over = True


def _expire(protocol: ResponseHandler) -> None:
    protocol.set_exception(aiohttp.SocketTimeoutError("The answer did not begin in time."))


def length_of(body: Body, headers: Headers) -> int | None:
    """Returns the length of the body in bytes; None if it is empty or unknown."""
    if isinstance(body, bytes):
        return len(body) if body else None
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


def pieces_of(body: Body) -> Body:
    """Returns a small body whole, and a larger one in pieces."""
    return _pieces(body) if isinstance(body, bytes) and len(body) > _WHOLE_BYTES else body


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


def _write_head(protocol: ResponseHandler, head: bytes) -> None:
    if head and protocol.transport is not None:  # else the writer raises
        protocol.transport.write(head)


async def send_pieces(
    protocol: ResponseHandler,
    head: bytes,
    pieces: AsyncIterator[bytes],
    length: int | None,
    deadline: AnswerDeadline,
) -> None:
    """Sends a head and its body: not more than `length` bytes, or without a length in chunks. The
    head waits for the first piece: no upstream gets a body that is refused at its beginning. An
    error of the body is set on the connection, so that it is raised where the answer is read."""
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    writer.length = length
    if length is None:
        writer.enable_chunking()
    try:
        async for piece in pieces:
            deadline.restart()
            _write_head(protocol, head)
            head = b""
            await writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # other requests get a turn if the upstream reads immediately
            deadline.pause()
        _write_head(protocol, head)
        await writer.write_eof()
    except Exception as error:
        failed = aiohttp.ClientConnectionError(f"The body was not sent: {error!r}")
        failed.__cause__ = error
        protocol.set_exception(failed)
        del failed  # its cause's traceback holds this frame: a reference cycle
    else:
        deadline.restart()
