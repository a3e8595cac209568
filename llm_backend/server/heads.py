"""A transport that sends an answer's head together with what follows it.

uvicorn writes them one after the other: each is a system call and a packet of its own, and wakes
the client. A head that nothing follows at once goes out in the loop's next turn.
"""

import asyncio
from typing import Any

__all__ = ["HeadsWithBodies"]

_HEAD = b"HTTP/1.1 "


class HeadsWithBodies:
    """Stands before another transport, and is like it in all else."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._written_bytes = 0

    def __getattr__(self, name: str) -> Any:  # any method of transports
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Writes, in the order in which it is called; what looks like a head may wait a turn. What
        comes when the connection is being closed is lost, like what was on its way."""
        if self._transport.is_closing():
            return
        self._written_bytes += len(data)
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Closes when all that was written has been sent."""
        self._flush()
        self._transport.close()

    def sent_bytes(self) -> tuple[int, int]:
        """How many bytes the client's side has taken, and how many wait for it."""
        waiting_bytes = self._transport.get_write_buffer_size()
        return self._written_bytes - waiting_bytes, waiting_bytes

    def _flush(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""
