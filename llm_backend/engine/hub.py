"""The worker's side of its connections: frames in, frames out, no thread, no work at rest."""

import contextlib
import itertools
import selectors
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from llm_backend.engine.messages import Command, Event
from llm_backend.engine.wire import FrameError, FrameReader, commands_in, frame

__all__ = ["Hub", "Received"]

_RECEIVE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Received:
    """A command that came over a connection; None when the connection is closed."""

    connection: int
    command: Command | None


@dataclass(frozen=True, kw_only=True)
class _Door:
    socket: socket.socket
    greeting: Event
    limit: int


class _Connection:
    def __init__(self, number: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.number = number
        self.socket = sock
        self.reader = FrameReader()
        self.outbox = bytearray()

    def receive(self) -> list[Command | None]:
        """What has come in, None last if nothing more will."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return [None]
        commands: list[Command | None] = []
        try:
            for body in self.reader.feed(data):
                commands += commands_in(body)
        except FrameError:
            return [*commands, None]
        return commands if data else [*commands, None]

    def flush(self) -> None:
        """Send what the peer takes now. That the peer is gone shows when it is read next."""
        while self.outbox:
            try:
                sent = self.socket.send(self.outbox)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.outbox.clear()
                return
            del self.outbox[:sent]


class Hub:
    """Any number of connections. A peer that lets more than `outbox_bytes` pile up is cut off."""

    def __init__(self) -> None:
        self.outbox_bytes = 1 << 20
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._numbers = itertools.count(1)
        self._door: _Door | None = None

    def add(self, sock: socket.socket) -> int:
        """Serve a connection; gives its number."""
        connection = _Connection(next(self._numbers), sock)
        self._connections[connection.number] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection.number

    def listen(self, sock: socket.socket, *, greeting: Event, limit: int) -> None:
        """Serve whoever connects to `sock`, told `greeting` first; beyond `limit` connections they
        are turned away."""
        sock.setblocking(False)
        self._door = _Door(socket=sock, greeting=greeting, limit=limit)
        self._selector.register(sock, selectors.EVENT_READ, None)

    def poll(self, timeout_s: float | None) -> list[Received]:
        """What has come in; waits for it up to `timeout_s`, for ever if None."""
        received: list[Received] = []
        for key, ready in self._selector.select(timeout_s):
            connection: _Connection | None = key.data
            if connection is None:
                self._let_in()
                continue
            if ready & selectors.EVENT_WRITE:
                connection.flush()
                self._watch(connection)
            if ready & selectors.EVENT_READ:
                number = connection.number
                received += [
                    Received(connection=number, command=item) for item in connection.receive()
                ]
        for item in received:
            if item.command is None:
                self.drop(item.connection)
        return received

    def send(self, number: int, events: Iterable[Event]) -> None:
        """One frame with all of `events`, as soon as the peer takes it."""
        connection = self._connections.get(number)
        if connection is None:
            return
        connection.outbox += frame(list(events))
        connection.flush()
        if len(connection.outbox) > self.outbox_bytes:
            with contextlib.suppress(OSError):  # the next poll sees it closed
                connection.socket.shutdown(socket.SHUT_RDWR)
            connection.outbox.clear()
        self._watch(connection)

    def drop(self, number: int) -> None:
        """Close a connection."""
        connection = self._connections.pop(number, None)
        if connection is not None:
            self._selector.unregister(connection.socket)
            connection.socket.close()

    def _let_in(self) -> None:
        assert self._door is not None, "only a door is registered without a connection"
        try:
            sock, _ = self._door.socket.accept()
        except OSError:  # it has gone again, or there is no descriptor left at the moment
            return
        if len(self._connections) > self._door.limit:  # the owner's is one of them
            sock.close()
            return
        self.send(self.add(sock), [self._door.greeting])

    def _watch(self, connection: _Connection) -> None:
        wanted = selectors.EVENT_READ
        if connection.outbox:
            wanted |= selectors.EVENT_WRITE
        if self._selector.get_key(connection.socket).events != wanted:
            self._selector.modify(connection.socket, wanted, connection)
