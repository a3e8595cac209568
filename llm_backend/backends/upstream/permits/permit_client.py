"""Permit client: permits for upstreams that one process holds, acquires and releases."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

from llm_backend.backends.upstream.attempts import Attempts
from llm_backend.backends.upstream.balance import Balance
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.permit_queue import busy
from llm_backend.backends.upstream.permits.permit_messages import (
    PLACES,
    AcquireCancelled,
    AcquirePermit,
    FromTaker,
    PermitGranted,
    PermitsScarce,
    PermitTimeout,
    ReleasePermit,
    from_server,
    line,
)
from llm_backend.backends.upstream.permits.permit_server import BLOCKS, UNREAD_BYTES

__all__ = ["PermitClient"]

log = logging.getLogger(__name__)

# How long a request waits for a permit if another backend could answer it: time in which other
# processes release unused permits.
RECALL_S = 0.1


class PermitClient:
    """Client of a `PermitServer`: permits of this process for these upstreams.

    If this process has a spare permit for each upstream that may answer a request, one of them is
    used. Otherwise a permit is acquired from the server, which knows the load of all processes.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._upstreams = {one.name: one for one in upstreams}
        self._balance = Balance()
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._asking: dict[int, asyncio.Future[Upstream]] = {}
        self._scarce: frozenset[str] = frozenset()
        self._server_is_gone = False
        for one in upstreams:
            one.places = 0
            one.on_room = partial(self._settle, one)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, folder: Path, upstreams: Sequence[Upstream], on_cut_off: Callable[[], None]
    ) -> AsyncIterator[Self]:
        """Connects to the server's socket in `folder`; `on_cut_off` is called when the connection
        is lost. Raises `OSError`."""
        reader, writer = await asyncio.open_unix_connection(folder / PLACES)
        places = cls(upstreams, reader, writer)
        reading = asyncio.create_task(places._read(on_cut_off))
        try:
            yield places
        finally:
            reading.cancel()
            writer.close()

    async def next(self, attempt: Attempts) -> Upstream:
        """Waits for a permit and returns its upstream; the caller sends the request before it
        awaits anything else. Raises `Overloaded`."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + (RECALL_S if attempt.asked.has_other else attempt.longest_wait_s)
        while True:
            wanted = attempt.wanted()
            if all(one.has_room for one in wanted):
                return self._balance.choose(wanted)
            names = [one.name for one in wanted]
            upstream = await self._given(attempt.asked.who, names, max(0.0, until_s - now_s()))
            if attempt.still_wants(upstream):
                return upstream
            self._settle(upstream)  # it was ejected meanwhile

    async def _given(self, who: str, among: list[str], within_s: float) -> Upstream:
        if self._server_is_gone:
            raise busy()
        number = next(self._numbers)
        given: asyncio.Future[Upstream] = asyncio.get_running_loop().create_future()
        self._asking[number] = given
        self._tell(AcquirePermit(number=number, who=who, among=among, within_s=within_s))
        try:
            upstream = await given
        except asyncio.CancelledError:
            self._give_up(number, given)
            raise
        finally:
            del self._asking[number]
        upstream.promised -= 1
        return upstream

    def _give_up(self, number: int, given: asyncio.Future[Upstream]) -> None:
        """Cancels a waiting request. A permit granted meanwhile becomes spare."""
        if not given.done() or given.cancelled():
            self._tell(AcquireCancelled(number=number))
        elif given.exception() is None:
            upstream = given.result()
            upstream.promised -= 1
            self._settle(upstream)

    async def _read(self, on_cut_off: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):  # the server was killed
            while (received := await self._reader.readline()).endswith(b"\n"):
                self._take(received)
        self._server_is_gone = True
        log.error("places_not_kept", extra={"waiting": len(self._asking)})
        for given in self._asking.values():
            if not given.done():
                given.set_exception(busy())
        on_cut_off()

    def _take(self, received: bytes) -> None:
        match from_server(received):
            case PermitGranted(number=number, upstream=name, count=count):
                self._have(number, self._upstreams[name], count)
            case PermitTimeout(number=number):
                given = self._asking.get(number)
                if given is not None and not given.done():
                    given.set_exception(busy())
            case PermitsScarce(upstreams=names):
                self._scarce = frozenset(names)
                for name in names:
                    self._settle(self._upstreams[name])

    def _have(self, number: int, upstream: Upstream, count: int) -> None:
        upstream.places += count
        given = self._asking.get(number)
        if given is None or given.done():  # the request was cancelled
            self._settle(upstream)
            return
        upstream.promised += 1
        given.set_result(upstream)

    def _settle(self, upstream: Upstream) -> None:
        """Releases spare permits: all if permits are scarce; otherwise those beyond one block, once
        there are more than two blocks."""
        spare = upstream.places - upstream.outstanding - upstream.promised
        block = 0 if upstream.name in self._scarce else upstream.config.concurrency // BLOCKS
        if spare > 2 * block:
            upstream.places -= spare - block
            self._tell(ReleasePermit(upstream=upstream.name, count=spare - block))

    def _tell(self, message: FromTaker) -> None:
        """Sends a message without waiting; disconnects from a server with too many unread bytes."""
        if self._writer.is_closing():
            return
        unread = self._writer.transport.get_write_buffer_size()
        if unread > UNREAD_BYTES:
            log.error("places_keeper_stuck", extra={"unread_bytes": unread})
            self._writer.transport.abort()  # which ends the read loop
            return
        self._writer.write(line(message))
