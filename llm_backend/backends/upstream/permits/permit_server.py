"""Permit server: grants permits for all upstreams, in the parent process of its clients."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from llm_backend.backends.upstream.balance import Balance
from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.permit_queue import PermitQueue
from llm_backend.backends.upstream.permits.permit_messages import (
    PLACES,
    AcquireCancelled,
    AcquirePermit,
    FromKeeper,
    FromTaker,
    PermitGranted,
    PermitsScarce,
    PermitTimeout,
    ReleasePermit,
    from_client,
    line,
)
from llm_backend.errors import Overloaded

__all__ = ["BLOCKS", "UNREAD_BYTES", "PermitServer"]

log = logging.getLogger(__name__)

BLOCKS = 20  # a block, granted at once while many permits are free, is 1/20 of the concurrency
UNREAD_BYTES = 1 << 20  # some 10,000 messages: only a stuck process leaves so many unread


class PermitServer:
    """Grants permits to the processes that connect in `folder`, `concurrency` per upstream.
    Callers of all processes take turns, as in one `PermitQueue`.

    While more than half of an upstream's permits are free, a process gets a block of them at once.
    While requests wait for an upstream, permits are granted one by one, and spare ones released.
    """

    def __init__(self, folder: Path, upstreams: Sequence[UpstreamConfig]) -> None:
        self._folder = folder
        self._places = {one.name: _UpstreamPermits(one) for one in upstreams}
        self._balance = Balance()
        self._line: PermitQueue[_UpstreamPermits] = PermitQueue(self._balance.choose)
        self._waiting: Counter[str] = Counter()  # waiting requests, by upstream
        self._sessions: set[_PermitClientSession] = set()
        self._manager_client: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._receive, self._folder / PLACES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._manager_client:
            task.cancel()
        await asyncio.gather(*self._manager_client, return_exceptions=True)

    def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, _PermitClientSession(writer)))
        self._manager_client.add(task)
        task.add_done_callback(self._manager_client.discard)

    async def _serve(self, reader: asyncio.StreamReader, session: "_PermitClientSession") -> None:
        self._sessions.add(session)
        try:
            with contextlib.suppress(OSError):  # the client was killed
                # A line without its end was cut off by the client's death.
                while (received := await reader.readline()).endswith(b"\n"):
                    self._take(session, from_client(received))
        finally:
            self._sessions.discard(session)
            session.close()
            for name, count in session.given.items():
                self._places[name].outstanding -= count
            self._line.let_in()

    def _take(self, session: "_PermitClientSession", message: FromTaker) -> None:
        match message:
            case AcquirePermit():
                self._ask(session, message)
            case AcquireCancelled(number=number):
                if number in session.asking:
                    session.asking[number].cancel()
            case ReleasePermit(upstream=name, count=count):
                session.given[name] -= count
                self._places[name].outstanding -= count
                self._line.let_in()

    def _ask(self, session: "_PermitClientSession", ask: AcquirePermit) -> None:
        if free := self._free(ask.among):
            self._give(session, ask, self._balance.choose(free))
            return
        task = asyncio.create_task(self._wait(session, ask))
        session.asking[ask.number] = task
        task.add_done_callback(lambda _: session.asking.pop(ask.number, None))

    async def _wait(self, session: "_PermitClientSession", ask: AcquirePermit) -> None:
        self._count_waiting(ask.among, 1)
        try:
            place = await self._line.place(
                ask.who,
                among=tuple(sorted(ask.among)),
                free=lambda: self._free(ask.among),
                within_s=ask.within_s,
            )
        except Overloaded:
            session.tell(PermitTimeout(number=ask.number))
        else:
            self._give(session, ask, place)
        finally:
            self._count_waiting(ask.among, -1)

    def _give(
        self, session: "_PermitClientSession", ask: AcquirePermit, place: "_UpstreamPermits"
    ) -> None:
        count = 1 if self._waiting[place.name] else 1 + place.spare
        place.outstanding += count
        session.given[place.name] += count
        session.tell(PermitGranted(number=ask.number, upstream=place.name, count=count))

    def _free(self, among: Sequence[str]) -> list["_UpstreamPermits"]:
        return [one for name in among if (one := self._places[name]).has_room]

    def _count_waiting(self, among: Sequence[str], change: int) -> None:
        before = +self._waiting
        self._waiting.update(dict.fromkeys(among, change))
        if (+self._waiting).keys() != before.keys():
            scarce = PermitsScarce(upstreams=list(+self._waiting))
            for session in self._sessions:
                session.tell(scarce)


class _UpstreamPermits:
    """Permits of one upstream: `outstanding` are granted, `promised` are about to be."""

    def __init__(self, config: UpstreamConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self.outstanding = 0
        self.promised = 0
        self._most = config.concurrency

    @property
    def has_room(self) -> bool:
        return self._left > 0

    @property
    def spare(self) -> int:
        """Number of permits that may be granted beyond the one requested."""
        return self._most // BLOCKS if self._left > self._most // 2 else 0

    @property
    def _left(self) -> int:
        return self._most - self.outstanding - self.promised


class _PermitClientSession:
    """The server's side of one connected client process."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.given: Counter[str] = Counter()
        self.asking: dict[int, asyncio.Task[None]] = {}
        self._writer = writer

    def tell(self, message: FromKeeper) -> None:
        """Sends a message without waiting; disconnects a client with too many unread bytes."""
        if self._writer.is_closing():
            return
        unread = self._writer.transport.get_write_buffer_size()
        if unread > UNREAD_BYTES:
            log.error("api_process_cut_off", extra={"unread_bytes": unread})
            self._writer.transport.abort()  # which ends the read loop
            return
        self._writer.write(line(message))

    def close(self) -> None:
        """Ends the session: cancels the client's waiting requests."""
        for task in self.asking.values():
            task.cancel()
        self._writer.close()
