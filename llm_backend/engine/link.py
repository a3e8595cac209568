"""The API process's end of one connection to a worker: commands out, each one's events in."""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto

from llm_backend.engine.errors import EngineDown
from llm_backend.engine.messages import (
    Accepted,
    Cancel,
    Command,
    Delta,
    Detokenize,
    Embed,
    Event,
    Failed,
    Generate,
    NotReady,
    Probe,
    Queued,
    Rank,
    Ready,
    Tokenize,
    joined,
)
from llm_backend.engine.wire import FrameError, FrameReader, events_in, frame

__all__ = ["Call", "Link", "Request", "Suspicion"]

Request = Generate | Embed | Rank | Tokenize | Detokenize | Probe

_RECEIVE_BYTES = 1 << 18
_LIKELY, _POSSIBLE = 1.0, 0.5


class _Stage(Enum):
    SENT = auto()
    QUEUED = auto()  # taken by the worker
    RUNNING = auto()  # computed by it


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """A command that may have ended the worker; `weight` is how much of that death it answers for:
    1, or less where others are more likely to have done it."""

    command: Request
    weight: float


class Call:
    """A command under way, and its events that nobody has read yet.

    Deltas of one choice that pile up are joined, so a slow reader costs at most the text of its own
    answer and holds up nobody.
    """

    def __init__(self, command: Request) -> None:
        self.command = command
        self.is_complete = False  # its last event has come
        self.has_shown = False  # a delta has come
        self.stage = _Stage.SENT
        self._unfinished = command.n if isinstance(command, Generate) else 1
        self._events: dict[int | str, Event] = {}  # by choice, or by kind; in order of arrival
        self._lost: EngineDown | None = None
        self._has_news = asyncio.Event()

    def put(self, event: Event) -> None:
        """Take an event that came in."""
        if isinstance(event, Queued | Accepted):
            self.stage = _Stage.QUEUED if isinstance(event, Queued) else _Stage.RUNNING
            if not (isinstance(event, Accepted) and isinstance(self.command, Generate)):
                return  # nobody waits for it
        key: int | str = event.index if isinstance(event, Delta) else type(event).__name__
        earlier = self._events.get(key)
        if isinstance(event, Delta) and isinstance(earlier, Delta):
            event = joined(earlier, event)
        self.has_shown = self.has_shown or isinstance(event, Delta)
        self._events[key] = event
        self._count(event)
        self._has_news.set()

    def lose(self, error: EngineDown) -> None:
        """No further event will come, because of `error`."""
        self._lost = error
        self._has_news.set()

    async def next(self) -> Event:
        """The next event; raises `EngineDown` when those that came before it are read."""
        while not self._events:
            if self._lost is not None:
                raise self._lost
            self._has_news.clear()
            await self._has_news.wait()
        return self._events.pop(next(iter(self._events)))

    def _count(self, event: Event) -> None:
        match event:
            case Delta(finish_reason=None):
                return
            case Delta():
                self._unfinished -= 1
                self.is_complete = self._unfinished == 0
            case _:
                is_accepted = isinstance(self.command, Generate) and not isinstance(event, Failed)
                self.is_complete = not is_accepted


class Link:
    """A connection. `first` gives the worker's first event, then `run` deals out all others."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._calls: dict[str, Call] = {}
        self._is_lost: EngineDown | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there are commands under way."""
        return bool(self._calls)

    def suspects(self) -> list[Suspicion]:
        """The commands that may have ended the worker.

        The likely ones are those it computed that have shown nothing yet, as what is wrong with a
        command shows early, and the one that it was to take next. Others that it computed, and
        those whose grammar it may have compiled, are possible. All others have only waited, and
        the first of them is asked for if there is nobody else.
        """
        calls = [call for call in self._calls.values() if not isinstance(call.command, Probe)]
        untaken = [call for call in calls if call.stage is _Stage.SENT]
        running = [call for call in calls if call.stage is _Stage.RUNNING]
        queued = [call for call in calls if call.stage is _Stage.QUEUED]
        likely = [*(call for call in running if not call.has_shown), *untaken[:1]]
        possible = [call for call in running if call.has_shown]
        possible += [call for call in queued if _has_grammar(call.command)]
        if not likely:
            likely, possible = possible or queued[:1], []
        return [
            *(Suspicion(command=call.command, weight=_LIKELY) for call in likely),
            *(Suspicion(command=call.command, weight=_POSSIBLE) for call in possible),
        ]

    def send(self, command: Command) -> None:
        """Send a command that nobody waits for."""
        if not self._writer.is_closing():
            self._writer.write(frame([command]))

    def call(self, command: Request) -> Call:
        """Send a command; its events come to the `Call`. Its id must not be under way already.
        Raises `UnicodeEncodeError` for text that is no text."""
        if command.id in self._calls:
            raise ValueError(f"the command {command.id!r} is under way already")
        data = frame([command])
        call = Call(command)
        if self._is_lost is not None:
            call.lose(self._is_lost)
            return call
        self._calls[command.id] = call
        self._writer.write(data)
        return call

    def hang_up(self, call: Call) -> None:
        """Nobody reads this call any more: the worker is told, unless it has finished."""
        if self._calls.get(call.command.id) is call:
            del self._calls[call.command.id]
            self.send(Cancel(id=call.command.id))

    async def first(self) -> Ready | NotReady | None:
        """The worker's first event; None if it is gone without one, or says what is no event."""
        while data := await self._receive():
            try:
                for body in self._frames.feed(data):
                    for event in events_in(body):
                        if isinstance(event, Ready | NotReady):
                            return event
            except FrameError:
                return None
        return None

    async def run(self) -> None:
        """Deal out events until the worker is gone."""
        while data := await self._receive():
            try:
                for body in self._frames.feed(data):
                    for event in events_in(body):
                        self._deal(event)
            except FrameError:
                return

    def lose(self, error: EngineDown) -> None:
        """The worker is gone: so are all calls."""
        self._is_lost = error
        for call in self._calls.values():
            call.lose(error)
        self._calls.clear()
        self._writer.close()

    async def _receive(self) -> bytes:
        try:
            return await self._reader.read(_RECEIVE_BYTES)
        except OSError:
            return b""

    def _deal(self, event: Event) -> None:
        if isinstance(event, Ready | NotReady):
            return
        call = self._calls.get(event.id)
        if call is None:
            return  # it was cancelled meanwhile
        call.put(event)
        if call.is_complete:
            del self._calls[event.id]


def _has_grammar(command: Request) -> bool:
    return isinstance(command, Generate) and command.grammar is not None
