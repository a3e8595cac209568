"""The API process's side of a connection to a worker: sends commands, and delivers the events that
answer each."""

import asyncio
import socket
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import cast

import msgspec

from llm_backend.engine.errors import EngineDown
from llm_backend.engine.messages import (
    Cancel,
    Command,
    Delta,
    Detokenize,
    Diarize,
    Draw,
    DrawingStep,
    Embed,
    Event,
    Generate,
    NotReady,
    Probe,
    Queued,
    Rank,
    Ready,
    ScoreLabels,
    SlotAssigned,
    Speak,
    Tokenize,
    Transcribe,
    join_deltas,
)
from llm_backend.engine.messages.framing import FrameError, FrameReader, events_in, frame

Request = (
    Generate
    | ScoreLabels
    | Embed
    | Rank
    | Transcribe
    | Speak
    | Diarize
    | Draw
    | Tokenize
    | Detokenize
    | Probe
)

_LIKELY, _POSSIBLE = 1.0, 0.5
_FIRST_EVENTS = (Ready, NotReady)


class _Stage(Enum):
    SENT = auto()
    QUEUED = auto()  # in the worker's queue
    RUNNING = auto()  # has a slot


@dataclass(frozen=True, kw_only=True)
class CrashCandidate:
    """A command that may have crashed the worker. `weight` is 1 for a likely cause, less if other
    commands are likelier."""

    command: Request
    weight: float


class Call:
    """A pending command, and its events that are not read yet.

    Unread deltas of one choice are joined. So a slow reader costs at most the memory of its own
    answer, and delays no other.
    """

    def __init__(self, command: Request) -> None:
        self.command = command
        self.is_complete = False  # its last event has arrived
        self.has_delta = False  # a delta has arrived
        self.stage = _Stage.SENT
        self._unfinished = command.n if isinstance(command, Generate) else 1
        self._events: dict[int | str, Event] = {}  # by choice, or by kind; in order of arrival
        self._error: EngineDown | None = None
        self._reader: asyncio.Future[None] | None = None  # resolved by the next event

    def add_event(self, event: Event) -> None:
        """Adds an event that has arrived."""
        if isinstance(event, Delta):
            self._add_delta(event)
        elif isinstance(event, Queued):
            self.stage = _Stage.QUEUED
            return  # no caller reads this event
        elif isinstance(event, SlotAssigned):
            self.stage = _Stage.RUNNING
            if not isinstance(self.command, Generate | ScoreLabels | Draw):
                return
            self._events["slot_assigned"] = event
        elif isinstance(event, DrawingStep):
            self._add_drawing_step(event)
        else:
            self._events["answer"] = event
            self.is_complete = True
        self._wake()

    def fail(self, error: EngineDown) -> None:
        """Marks the call as lost: after the events so far, `error` is raised."""
        self._error = error
        self._wake()

    async def next(self) -> Event:
        """Returns the next event, for one reader; raises `EngineDown` after the last event of a
        lost call."""
        while not self._events:
            if self._error is not None:
                raise copy(self._error)  # a raised original would refer to this call, in a cycle
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._events.pop(next(iter(self._events)))

    def _add_delta(self, delta: Delta) -> None:
        self.has_delta = True
        earlier = self._events.get(delta.index)
        self._events[delta.index] = (
            join_deltas(earlier, delta) if isinstance(earlier, Delta) else delta
        )
        if delta.finish_reason is not None:
            self._unfinished -= 1
            self.is_complete = self._unfinished == 0

    def _add_drawing_step(self, event: DrawingStep) -> None:
        earlier = self._events.get("step")
        if event.preview is None and isinstance(earlier, DrawingStep):
            event = msgspec.structs.replace(event, preview=earlier.preview)
        self._events["step"] = event

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class EngineConnection(asyncio.Protocol):
    """A connection to a worker. `first` returns the worker's first event. `data_received` delivers
    the others to their calls itself: a task that reads them would cost a turn of the event loop
    for every token."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._calls: dict[str, Call] = {}
        self._lost_error: EngineDown | None = None
        self._first: asyncio.Future[Ready | NotReady | None]
        self._first = asyncio.get_running_loop().create_future()
        self._closed = asyncio.Event()
        self._handle_end: Callable[[], None] | None = None

    @classmethod
    async def from_socket(cls, sock: socket.socket) -> "EngineConnection":
        """Wraps a connected socket, which the connection owns from now on."""
        _, connection = await asyncio.get_running_loop().create_unix_connection(cls, sock=sock)
        return connection

    @classmethod
    async def connect(cls, socket_path: Path) -> "EngineConnection":
        """Connects to the socket path of a worker. Raises `OSError` if no process listens there."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(cls, str(socket_path))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop when the connection is open."""
        self._transport = cast(asyncio.Transport, transport)  # the loop has no other for a stream

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: delivers the events in `data`. Invalid frames close the
        connection."""
        try:
            for body in self._frames.feed(data):
                for event in events_in(body):
                    self._dispatch(event)
        except FrameError:
            self._close()

    def eof_received(self) -> None:
        """Called by the event loop when the worker has closed its side."""
        self._close()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop when the connection is closed."""
        self._close()

    @property
    def is_busy(self) -> bool:
        """True if commands are pending."""
        return bool(self._calls)

    @property
    def is_open(self) -> bool:
        """True if commands can be sent; False once either side has closed the connection."""
        return not self._transport.is_closing()

    def crash_candidates(self) -> list[CrashCandidate]:
        """Returns the commands that may have crashed the worker.

        Likely are the running commands without a delta so far, because most crashes come early, and
        the oldest command that the worker has not queued yet. Possible are the other running
        commands, and queued ones whose grammar may have been compiled. If none is likely, the
        possible ones count as likely; if none is possible either, the first queued command does.
        """
        calls = [call for call in self._calls.values() if not isinstance(call.command, Probe)]
        sent = [call for call in calls if call.stage is _Stage.SENT]
        running = [call for call in calls if call.stage is _Stage.RUNNING]
        queued = [call for call in calls if call.stage is _Stage.QUEUED]
        likely = [*(call for call in running if not call.has_delta), *sent[:1]]
        possible = [call for call in running if call.has_delta]
        possible += [call for call in queued if _has_grammar(call.command)]
        if not likely:
            likely, possible = possible or queued[:1], []
        return [
            *(CrashCandidate(command=call.command, weight=_LIKELY) for call in likely),
            *(CrashCandidate(command=call.command, weight=_POSSIBLE) for call in possible),
        ]

    def send(self, command: Command) -> None:
        """Sends a command without a call."""
        if self.is_open:
            self._transport.write(frame([command]))

    def call(self, command: Request) -> Call:
        """Sends a command; the returned `Call` gets its events. Raises `ValueError` if a command
        with this id is pending, `UnicodeEncodeError` for text with surrogates."""
        if command.id in self._calls:
            raise ValueError(f"the command {command.id!r} is pending already")
        data = frame([command])
        call = Call(command)
        if self._lost_error is not None:
            call.fail(self._lost_error)
            return call
        self._calls[command.id] = call
        self._transport.write(data)
        return call

    def end_call(self, call: Call) -> None:
        """Ends a call whose events are not read any more: cancels its command unless that is
        complete."""
        if self._calls.get(call.command.id) is call:
            del self._calls[call.command.id]
            self.send(Cancel(id=call.command.id))

    async def first(self) -> Ready | NotReady | None:
        """Waits for the worker's first event; None if the connection is closed before, or an
        invalid frame came."""
        return await self._first

    async def wait_closed(self) -> None:
        """Waits until the connection has ended."""
        await self._closed.wait()

    def call_at_end(self, handle_end: Callable[[], None]) -> None:
        """Registers `handle_end`, which is called when the connection ends; now if it has."""
        if self._closed.is_set():
            handle_end()
        else:
            self._handle_end = handle_end

    def fail_calls(self, error: EngineDown) -> None:
        """Marks all calls as lost, because the worker has ended."""
        self._lost_error = error
        for call in self._calls.values():
            call.fail(error)
        self._calls.clear()
        self._transport.close()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, _FIRST_EVENTS):
            self._resolve_first(event)
            return
        call = self._calls.get(event.id)
        if call is None:
            return  # it was cancelled meanwhile
        call.add_event(event)
        if call.is_complete:
            del self._calls[event.id]

    def _resolve_first(self, event: Ready | NotReady | None) -> None:
        if not self._first.done():  # or the wait was cancelled
            self._first.set_result(event)

    def _close(self) -> None:
        """Ends the connection: nothing more can be received."""
        self._transport.close()
        self._resolve_first(None)
        self._closed.set()
        if self._handle_end is not None:
            self._handle_end()


def _has_grammar(command: Request) -> bool:
    return isinstance(command, Generate) and command.grammar is not None
