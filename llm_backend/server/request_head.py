"""Heads of HTTP messages: validation of a request's target and `Host` (RFC 9112, 3.2), and a
transport that sends the head of an answer with its body."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)", re.IGNORECASE)
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
_HEAD = b"HTTP/1.1 "


def head_error(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Returns the error in a request's head as a sentence for the client; None for a valid head.
    Names of headers are in lower case.

    The application and a proxy in front of it must see the same single `Host`: they could choose
    differently between two, or between it and the host of the target.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return "The request has more than one `Host` header."
    if not hosts and version == "1.1":
        return "A request of HTTP/1.1 must have a `Host` header."
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "The `Host` header is not a host with or without a port."
    if target.startswith(b"/") or target == b"*":
        return None
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return "The request's target is neither a path nor an http or https URL."
    scheme, authority = (part.lower() for part in absolute.groups())
    if not hosts or _host_and_port(scheme, authority) != _host_and_port(scheme, hosts[0].lower()):
        return "The request's target names another host than its `Host` header."
    return None


def head_size(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Returns the bytes of a target and headers, with `: ` and the line end of each header."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def _host_and_port(scheme: bytes, authority: bytes) -> tuple[bytes, bytes]:
    """Returns host and port, by default the port of the scheme."""
    host, colon, port = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, port = authority, b""
    return host, port or _DEFAULT_PORTS[scheme]


class HeadCoalescingTransport:
    """Transport that sends the head of an answer together with the first bytes of its body; wraps
    another transport, and delegates everything else to it.

    uvicorn writes them separately: each costs a system call and a packet, and wakes the client. A
    head without an immediate body is sent in the next turn of the event loop.
    """

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
