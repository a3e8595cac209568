"""The places at all upstreams, in the process that the others have been started by."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from llm_backend.backends.upstreams.balance import Balance
from llm_backend.backends.upstreams.config import UpstreamConfig
from llm_backend.backends.upstreams.line import Line
from llm_backend.backends.upstreams.places.messages import (
    PLACES,
    Ask,
    Busy,
    Free,
    FromKeeper,
    FromTaker,
    Given,
    GivenUp,
    Scarce,
    from_taker,
    line,
)
from llm_backend.errors import Overloaded

__all__ = ["BLOCKS", "UNREAD_BYTES", "PlaceKeeper"]

log = logging.getLogger(__name__)

BLOCKS = 20  # that an upstream's places are given in while there are many
UNREAD_BYTES = 1 << 20  # some 10,000 messages wait only for a process that is stuck


class PlaceKeeper:
    """Gives places to the processes that connect in `folder`, each upstream's as many as its
    `concurrency`. Callers of all processes take turns, as they do in one `Line`.

    While more than half of them are free a process gets a block at once and need not ask for each;
    as long as anybody waits nothing is given beyond need, and what is not needed comes back.
    """

    def __init__(self, folder: Path, upstreams: Sequence[UpstreamConfig]) -> None:
        self._folder = folder
        self._places = {one.name: _Places(one) for one in upstreams}
        self._balance = Balance()
        self._line: Line[_Places] = Line(self._balance.choose)
        self._waiting: Counter[str] = Counter()  # asks, by the upstreams that they are among
        self._takers: set[_Taker] = set()
        self._lodging: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._receive, self._folder / PLACES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._lodging:
            task.cancel()
        await asyncio.gather(*self._lodging, return_exceptions=True)

    def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, _Taker(writer)))
        self._lodging.add(task)
        task.add_done_callback(self._lodging.discard)

    async def _serve(self, reader: asyncio.StreamReader, taker: "_Taker") -> None:
        self._takers.add(taker)
        try:
            with contextlib.suppress(OSError):  # it was killed
                while (received := await reader.readline()).endswith(b"\n"):  # half a line is none
                    self._take(taker, from_taker(received))
        finally:
            self._takers.discard(taker)
            taker.close()
            for name, count in taker.given.items():
                self._places[name].outstanding -= count
            self._line.let_in()

    def _take(self, taker: "_Taker", message: FromTaker) -> None:
        match message:
            case Ask():
                self._ask(taker, message)
            case GivenUp(number=number):
                if number in taker.asking:
                    taker.asking[number].cancel()
            case Free(upstream=name, count=count):
                taker.given[name] -= count
                self._places[name].outstanding -= count
                self._line.let_in()

    def _ask(self, taker: "_Taker", ask: Ask) -> None:
        if free := self._free(ask.among):
            self._give(taker, ask, self._balance.choose(free))
            return
        task = asyncio.create_task(self._wait(taker, ask))
        taker.asking[ask.number] = task
        task.add_done_callback(lambda _: taker.asking.pop(ask.number, None))

    async def _wait(self, taker: "_Taker", ask: Ask) -> None:
        self._count_waiting(ask.among, 1)
        try:
            place = await self._line.place(
                ask.who,
                among=tuple(sorted(ask.among)),
                free=lambda: self._free(ask.among),
                within_s=ask.within_s,
            )
        except Overloaded:
            taker.tell(Busy(number=ask.number))
        else:
            self._give(taker, ask, place)
        finally:
            self._count_waiting(ask.among, -1)

    def _give(self, taker: "_Taker", ask: Ask, place: "_Places") -> None:
        count = 1 if self._waiting[place.name] else 1 + place.spare
        place.outstanding += count
        taker.given[place.name] += count
        taker.tell(Given(number=ask.number, upstream=place.name, count=count))

    def _free(self, among: Sequence[str]) -> list["_Places"]:
        return [one for name in among if (one := self._places[name]).has_room]

    def _count_waiting(self, among: Sequence[str], change: int) -> None:
        before = +self._waiting
        self._waiting.update(dict.fromkeys(among, change))
        if (+self._waiting).keys() != before.keys():
            scarce = Scarce(upstreams=list(+self._waiting))
            for taker in self._takers:
                taker.tell(scarce)


class _Places:
    """Those of one upstream: `outstanding` have been given, `promised` are about to be."""

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
        """How many may be given beyond the one that is needed."""
        return self._most // BLOCKS if self._left > self._most // 2 else 0

    @property
    def _left(self) -> int:
        return self._most - self.outstanding - self.promised


class _Taker:
    """One process, as the keeper sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.given: Counter[str] = Counter()
        self.asking: dict[int, asyncio.Task[None]] = {}
        self._writer = writer

    def tell(self, message: FromKeeper) -> None:
        """Without waiting until it is read; who leaves too much unread is cut off."""
        if self._writer.is_closing():
            return
        unread = self._writer.transport.get_write_buffer_size()
        if unread > UNREAD_BYTES:
            log.error("api_process_cut_off", extra={"unread_bytes": unread})
            self._writer.transport.abort()  # which ends its reading
            return
        self._writer.write(line(message))

    def close(self) -> None:
        """It has gone: nobody waits for what it asked."""
        for task in self.asking.values():
            task.cancel()
        self._writer.close()
