"""Connection of two processes: messages as lines of JSON, with a bound for unread bytes."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

import msgspec

log = logging.getLogger(__name__)

Received = TypeVar("Received")
Sent = TypeVar("Sent")


@dataclass(frozen=True, kw_only=True)
class Channel(Generic[Received]):
    """One end of a protocol: how its messages are decoded, and the name of its peer in logs.

    `limit_bytes` is the longest line; a peer with more unread bytes than this counts as stuck.
    """

    decode: Callable[[bytes], Received]
    peer: str
    limit_bytes: int


class MessageConnection(Generic[Received, Sent]):
    """Connection to another process, which receives and sends messages."""

    def __init__(
        self,
        channel: Channel[Received],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._channel = channel
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path, channel: Channel[Received]) -> Self:
        """Connects to the server that listens at this socket path. Raises `OSError`."""
        return cls(channel, *await asyncio.open_unix_connection(path, limit=channel.limit_bytes))

    @classmethod
    async def open(cls, end: socket.socket, channel: Channel[Received]) -> Self:
        """Opens a connection over one end of a pair of sockets."""
        return cls(
            channel, *await asyncio.open_unix_connection(sock=end, limit=channel.limit_bytes)
        )

    @property
    def unread_bytes(self) -> int:
        """Number of bytes sent that the peer has not read yet, beyond the socket's own buffer."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: Sent) -> None:
        """Sends a message without waiting; disconnects from a peer with too many unread bytes."""
        if self._writer.is_closing():
            return
        if self.unread_bytes > self._channel.limit_bytes:
            stuck = {"peer": self._channel.peer, "unread_bytes": self.unread_bytes}
            log.error("ipc_peer_stuck", extra=stuck)
            self._writer.transport.abort()  # makes `receive` return None, which ends the session
            return
        self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> Received | None:
        """Waits for the next message; None once the peer has disconnected or was killed. A line
        that is not a message, or is too long, disconnects the peer."""
        try:
            line = await self._reader.readline()
            # the peer's death cuts its last line off
            return self._channel.decode(line) if line.endswith(b"\n") else None
        except OSError:  # the peer was killed
            return None
        except (ValueError, msgspec.MsgspecError) as error:  # a `ValueError` of `readline`
            fields = {"peer": self._channel.peer, "reason": str(error)}
            log.error("ipc_message_invalid", extra=fields)
            self._writer.transport.abort()
            return None

    async def drain(self) -> None:
        """Waits until the peer has read most of what was sent. Raises `OSError` once the peer has
        disconnected."""
        await self._writer.drain()

    def close(self) -> None:
        """Disconnects, after all messages are sent."""
        self._writer.close()
