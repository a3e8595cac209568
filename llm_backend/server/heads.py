"""Transport that sends the head of an answer together with the first bytes of its body.

uvicorn writes them separately: each costs a system call and a packet, and wakes the client. A head
without an immediate body is sent in the next turn of the event loop.
"""

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "


class HeadsWithBodies:
    """Wraps another transport, and delegates everything else to it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._written_bytes = 0

    def __getattr__(self, name: str) -> Any:  # any method of transports
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Writes in order; a head may be delayed by one turn. Data written while the connection is
        being closed is lost, like other unsent data."""
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
        """Closes after all written data has been sent."""
        self._flush()
        self._transport.close()

    def sent_bytes(self) -> tuple[int, int]:
        """Returns the bytes that the client's side has accepted, and the bytes still buffered."""
        waiting_bytes = self._transport.get_write_buffer_size()
        return self._written_bytes - waiting_bytes, waiting_bytes

    def _flush(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""
