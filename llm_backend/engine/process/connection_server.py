"""The worker's side of its connections: receives and sends frames without threads, and blocks
while idle."""

import contextlib
import itertools
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.engine.messages import Command, Event
from llm_backend.engine.messages.framing import FrameError, FrameReader, commands_in, frames

_RECEIVE_BYTES = 1 << 20
# A peer with a full buffer that reads nothing for this time will not read again. Garbage
# collections, swapping and short stops in a debugger are over by then.
_STALL_S = 30.0
_ACCEPT_PAUSE_S = 0.5  # delay of a client that connects when no descriptor is left


@dataclass(frozen=True, kw_only=True)
class ReceivedCommand:
    """A command that came over a connection; `command` is None when the connection is closed."""

    connection: int
    command: Command | None


@dataclass(frozen=True, kw_only=True)
class _ListeningSocket:
    socket: socket.socket
    first_event: Event
    limit: int


class _Connection:
    def __init__(self, number: int, sock: socket.socket, *, is_remote: bool) -> None:
        sock.setblocking(False)
        self.number = number
        self.socket = sock
        self.is_remote = is_remote
        self.is_full = False  # events wait until the peer reads
        self.stalled_since: float | None = None  # when the peer first took nothing of the outbox
        self.reader = FrameReader()
        self.outbox = bytearray()

    def receive(self) -> list[Command | None]:
        """Returns the commands that have arrived, None last if the connection is closed."""
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

    def send(self, data: bytes) -> None:
        """Sends `data` after the outbox. Mostly the outbox is empty and the peer takes all data."""
        if not self.outbox:
            try:
                data = data[self.socket.send(data) :]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:  # the next read notices the closed connection, as in `flush`
                return
        self.outbox += data

    def flush(self) -> None:
        """Sends as much of the outbox as the peer takes now. The next read notices a closed
        peer."""
        waiting = len(self.outbox)
        while self.outbox:
            try:
                sent = self.socket.send(self.outbox)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.outbox.clear()
                break
            del self.outbox[:sent]
        if len(self.outbox) < waiting or not waiting:
            self.stalled_since = None
        elif self.stalled_since is None:
            self.stalled_since = time.monotonic()


class ConnectionServer:
    """Serves any number of connections. A remote client is disconnected if more than
    `outbox_bytes` wait for it and it has read nothing for `stall_s`; the owner's connection
    never is."""

    def __init__(self) -> None:
        self.outbox_bytes = 1 << 20
        self.stall_s = _STALL_S
        self.accept_pause_s = _ACCEPT_PAUSE_S
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._numbers = itertools.count(1)
        self._listening: _ListeningSocket | None = None
        # when a listening socket that is paused is polled again
        self._accepts_at: float | None = None

    def add(self, sock: socket.socket) -> int:
        """Serves a connection; returns its number."""
        return self._register(sock, is_remote=False)

    def listen(self, sock: socket.socket, *, first_event: Event, limit: int) -> None:
        """Serves every process that connects to `sock`, and sends it `first_event` first;
        connections beyond `limit` are closed."""
        sock.setblocking(False)
        self._listening = _ListeningSocket(socket=sock, first_event=first_event, limit=limit)
        self._selector.register(sock, selectors.EVENT_READ, None)

    def poll(self, timeout_s: float | None) -> list[ReceivedCommand]:
        """Returns the commands that have arrived; waits up to `timeout_s`, for ever if None, and
        not beyond the pause of the listening socket."""
        received: list[ReceivedCommand] = []
        for key, ready in self._selector.select(self._poll_timeout_s(timeout_s)):
            connection: _Connection | None = key.data
            if connection is None:
                self._accept()
                continue
            if ready & selectors.EVENT_WRITE:
                connection.flush()
                self._update_interest(connection)
            if ready & selectors.EVENT_READ:
                number = connection.number
                received += [
                    ReceivedCommand(connection=number, command=item)
                    for item in connection.receive()
                ]
        for item in received:
            if item.command is None:
                self.drop(item.connection)
        return received

    def send(self, number: int, events: Sequence[Event]) -> None:
        """Sends all of `events` as soon as the peer takes them; in one frame, unless that is
        large."""
        connection = self._connections.get(number)
        if connection is None:
            return
        if connection.outbox:
            connection.flush()  # so that data that the peer has read meanwhile is counted
            if self._is_stalled(connection):
                self._disconnect(connection)
                return
        for data in frames(events):
            connection.send(data)
        if connection.outbox:
            connection.flush()
        self._update_interest(connection)

    def drop(self, number: int) -> None:
        """Closes a connection."""
        connection = self._connections.pop(number, None)
        if connection is not None:
            self._selector.unregister(connection.socket)
            connection.socket.close()

    def _register(self, sock: socket.socket, *, is_remote: bool) -> int:
        connection = _Connection(next(self._numbers), sock, is_remote=is_remote)
        self._connections[connection.number] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection.number

    def _is_stalled(self, connection: _Connection) -> bool:
        since = connection.stalled_since
        return (
            connection.is_remote
            and len(connection.outbox) > self.outbox_bytes
            and since is not None
            and time.monotonic() - since > self.stall_s
        )

    def _disconnect(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):  # the next poll sees the closed connection
            connection.socket.shutdown(socket.SHUT_RDWR)
        connection.outbox.clear()
        self._update_interest(connection)

    def _accept(self) -> None:
        assert self._listening is not None, "only the listening socket has no connection"
        try:
            sock, _ = self._listening.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has closed it again
            return
        except OSError:
            # no descriptor is free, and a waiting client would wake every poll until one is
            self._selector.unregister(self._listening.socket)
            self._accepts_at = time.monotonic() + self.accept_pause_s
            return
        if len(self._connections) > self._listening.limit:  # the owner's is one of them
            sock.close()
            return
        self.send(self._register(sock, is_remote=True), [self._listening.first_event])

    def _poll_timeout_s(self, timeout_s: float | None) -> float | None:
        """Limit of the next wait in seconds; resumes a listening socket whose pause is over."""
        if self._accepts_at is None:
            return timeout_s
        pause_s = self._accepts_at - time.monotonic()
        if pause_s > 0:
            return pause_s if timeout_s is None else min(pause_s, timeout_s)
        assert self._listening is not None, "only a listening socket is paused"
        self._selector.register(self._listening.socket, selectors.EVENT_READ, None)
        self._accepts_at = None
        return timeout_s

    def _update_interest(self, connection: _Connection) -> None:
        is_full = bool(connection.outbox)
        if is_full != connection.is_full:
            connection.is_full = is_full
            interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if is_full else 0)
            self._selector.modify(connection.socket, interest, connection)
