"""How many requests of a key or a project run at once, at this server or at all that share a
database.

Shared ones are held by a lease, a few at a time where there are many, so that the database is asked
once in several requests; what is not needed is given back. A server exchanges what it needs and
what it does not of all scopes together, one exchange after the other: so servers that share many
scopes never wait for each other in turn. While the database cannot be used, each counts the whole
limit by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import NoReturn

from llm_backend.errors import RequestsLimited
from llm_backend.store import StoreError
from llm_backend.store.administration import Exchange, Running

__all__ = ["ConcurrencyLimit", "SharedConcurrencyLimits", "enter", "leave"]

log = logging.getLogger(__name__)

BLOCKS = 20  # that a limit is taken in: of fewer than so many, each is taken for itself
LEASE_S = 30  # after which a dead server's are there for others
LINGER_S = 0.02  # of what is not needed: the next request may need it
ASK_AGAIN_S = 0.25  # after there were none
DOWN_S = 5.0  # for which a database that could not be used is left alone
BUSY_S = 1.0  # after which somebody who had too many requests at once may come back


class ConcurrencyLimit:
    """Those of one scope: `most` in all, `granted` to this server, of which some are `running`."""

    __slots__ = ("_shared", "_vain_until", "_waiting", "granted", "most", "running", "scope")

    def __init__(
        self, scope: str, most: int, shared: "SharedConcurrencyLimits | None" = None
    ) -> None:
        self.scope = scope
        self.most = most
        self.running = 0
        self.granted = 0 if shared else most
        self._shared = shared
        self._waiting = 0
        self._vain_until = 0.0

    async def enter(self) -> None:
        """Takes one. Raises `RequestsLimited` where there is none."""
        if self.running >= self.granted and self._shared is not None:
            await self._ask(self._shared)
        if self.running >= self.granted and not self._is_alone:
            raise self._full()
        self.running += 1

    def leave(self) -> None:
        """Gives it back; to others too, beyond a few that are kept for who comes next."""
        self.running -= 1
        if self._shared is not None and self.spare:
            self._shared.offer(self)

    def exchange(self) -> Exchange:
        """What is to be given back and taken now; what is given back is not ours from now on."""
        given, missing = self.spare, self.running + self._waiting - self.granted
        self.granted -= given
        wanted = max(missing, self.most // BLOCKS) if missing > 0 else 0
        return Exchange(scope=self.scope, given=given, wanted=wanted, most=self.most)

    def are_granted(self, number: int, now: float) -> None:
        """So many of those wanted there are."""
        self.granted += number
        if not number:
            self._vain_until = now + ASK_AGAIN_S

    @property
    def spare(self) -> int:
        """How many are not needed."""
        block, unused = self.most // BLOCKS, self.granted - self.running - self._waiting
        return unused - block if unused > 2 * block else 0

    @property
    def _is_alone(self) -> bool:
        is_down = self._shared is not None and self._shared.is_down
        return is_down and self.running < self.most

    async def _ask(self, shared: "SharedConcurrencyLimits") -> None:
        if shared.is_down or shared.clock() < self._vain_until:
            return
        self._waiting += 1
        try:
            await shared.exchanged(self)
        finally:
            self._waiting -= 1

    def _full(self) -> RequestsLimited:
        where = "" if self._shared is None else ", at all processes and servers together"
        return RequestsLimited(
            f"Rate limit reached for {self.scope} on requests running at once{where}: Limit "
            f"{self.most}, Used {self.most}, Requested 1. Please try again in {BUSY_S:g}s.",
            retry_after_s=BUSY_S,
            more_headers={},
        )


class SharedConcurrencyLimits:
    """What this server holds of those that are shared."""

    def __init__(self, stored: Running, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._stored = stored
        self._holder = token_hex(8)
        self._down_until = 0.0
        self._asking: dict[ConcurrencyLimit, asyncio.Future[None]] = {}
        self._offered: set[ConcurrencyLimit] = set()
        self._is_asked = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._exchanging: asyncio.Task[None] | None = None

    @property
    def is_down(self) -> bool:
        """Whether the database could not be used a moment ago."""
        return self.clock() < self._down_until

    async def exchanged(self, slots: ConcurrencyLimit) -> None:
        """Returns when as many more are granted as are missing, or as there are."""
        if (asked := self._asking.get(slots)) is None:
            asked = self._asking[slots] = asyncio.get_running_loop().create_future()
            self._is_asked.set()
            self._begin()
        await asyncio.shield(asked)

    def offer(self, slots: ConcurrencyLimit) -> None:
        """Some of them are not needed, unless somebody asks for them at once."""
        self._offered.add(slots)
        self._begin()

    async def settle(self) -> None:
        """Returns when there is nothing to exchange."""
        if self._exchanging is not None:
            await self._exchanging

    async def renew_forever(self) -> NoReturn:
        """Holds what this server has."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self.renew()

    async def renew(self) -> None:
        """Holds it for another while."""
        with self._telling():
            async with self._one_at_a_time:
                await self._stored.renew(self._holder, until=int(self.clock()) + LEASE_S)

    async def leave(self) -> None:
        """This server ends."""
        await self.settle()
        with self._telling():
            await self._stored.leave(self._holder)

    async def expire(self) -> None:
        """Forgets what is over."""
        await self._stored.forget(now=int(self.clock()))

    def _begin(self) -> None:
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._asking or self._offered:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._is_asked.wait()
            self._is_asked.clear()
            asking, self._asking = self._asking, {}
            offered, self._offered = self._offered, set()
            try:
                with self._telling():
                    await self._exchange([*offered.union(asking)])
            finally:
                for asked in asking.values():
                    asked.set_result(None)

    async def _exchange(self, all_slots: Sequence[ConcurrencyLimit]) -> None:
        exchanges = {slots: slots.exchange() for slots in all_slots}
        wanted = [one for one in exchanges.values() if one.given or one.wanted]
        if not wanted:
            return
        now = int(self.clock())
        try:
            async with self._one_at_a_time:
                granted = await self._stored.exchange(
                    wanted, holder=self._holder, now=now, until=now + LEASE_S
                )
        except StoreError:
            for slots, one in exchanges.items():
                slots.granted += one.given  # which was not: they are offered again with the next
            raise
        for slots, one in exchanges.items():
            if one.wanted:
                slots.are_granted(granted[slots.scope], self.clock())
            if slots.spare:  # who asked for them has left
                self._offered.add(slots)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:  # what is not given back is free when its lease is over
            self._down_until = self.clock() + DOWN_S
            log.warning("slots_not_shared", extra={"reason": str(error)})


async def enter(slots: Sequence[ConcurrencyLimit]) -> None:
    """Takes one of each. Raises `RequestsLimited`, and has taken none then."""
    for place, one in enumerate(slots):
        try:
            await one.enter()
        except BaseException:
            leave(slots[:place])
            raise


def leave(slots: Sequence[ConcurrencyLimit]) -> None:
    """Gives one of each back."""
    for one in slots:
        one.leave()
