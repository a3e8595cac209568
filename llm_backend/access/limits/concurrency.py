"""Concurrency limits: requests of a key or a project that run at once, on this server or on all
servers that share a database.

Shared permits are leased from the database in blocks, so that it is queried once for several
requests; surplus permits are returned. A server sends one exchange at a time, for all scopes
together: so servers that share many scopes cannot deadlock. While the database cannot be used,
each server enforces the whole limit by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import NoReturn

from llm_backend.block_grants import BLOCKS, surplus
from llm_backend.errors import RETRY_AFTER_S, RequestsLimited
from llm_backend.store import StoreError
from llm_backend.store.administration import Exchange, Running

__all__ = ["ConcurrencyLimit", "SharedConcurrencyLimits", "enter", "leave"]

log = logging.getLogger(__name__)

LEASE_S = 30  # after which permits of a dead server are free
LINGER_S = 0.02  # before surplus permits are returned: the next request may need them
ASK_AGAIN_S = 0.25  # after an exchange that granted none
DOWN_S = 5.0  # pause after a database error


class ConcurrencyLimit:
    """Permits of one scope: `most` in all, `granted` to this server, `running` in use."""

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
        """Takes a permit. Raises `RequestsLimited` if there is none."""
        if self.running >= self.granted and self._shared is not None:
            await self._ask(self._shared)
        if self.running >= self.granted and not self._is_alone:
            raise self._full()
        self.running += 1

    def leave(self) -> None:
        """Returns a permit. Surplus permits go to other servers, except for a reserve."""
        self.running -= 1
        if self._shared is not None and self.spare:
            self._shared.offer(self)

    def exchange(self) -> Exchange:
        """Returns the permits to give back and to request; gives up the former at once."""
        given, missing = self.spare, self.running + self._waiting - self.granted
        self.granted -= given
        wanted = max(missing, self.most // BLOCKS) if missing > 0 else 0
        return Exchange(scope=self.scope, given=given, wanted=wanted, most=self.most)

    def are_granted(self, number: int, now: float) -> None:
        """Adds permits that the database has granted."""
        self.granted += number
        if not number:
            self._vain_until = now + ASK_AGAIN_S

    @property
    def spare(self) -> int:
        """The number of surplus permits."""
        return surplus(self.granted - self.running - self._waiting, self.most // BLOCKS)

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
            f"{self.most}, Used {self.most}, Requested 1. Please try again in {RETRY_AFTER_S:g}s.",
            retry_after_s=RETRY_AFTER_S,
            more_headers={},
        )


class SharedConcurrencyLimits:
    """Leases shared permits of all scopes from the database for this server."""

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
        """True for a while after a database error."""
        return self.clock() < self._down_until

    async def exchanged(self, slots: ConcurrencyLimit) -> None:
        """Waits for an exchange that requests the missing permits; it may grant fewer."""
        if (asked := self._asking.get(slots)) is None:
            asked = self._asking[slots] = asyncio.get_running_loop().create_future()
            self._is_asked.set()
            self._begin()
        await asyncio.shield(asked)

    def offer(self, slots: ConcurrencyLimit) -> None:
        """Returns surplus permits with the next exchange, unless a request takes them before."""
        self._offered.add(slots)
        self._begin()

    async def settle(self) -> None:
        """Waits until no exchange is pending."""
        if self._exchanging is not None:
            await self._exchanging

    async def renew_forever(self) -> NoReturn:
        """Renews the lease of this server periodically."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self.renew()

    async def renew(self) -> None:
        """Renews the lease once."""
        with self._telling():
            async with self._one_at_a_time:
                await self._stored.renew(self._holder, until=int(self.clock()) + LEASE_S)

    async def leave(self) -> None:
        """Releases all permits of this server, at shutdown."""
        await self.settle()
        with self._telling():
            await self._stored.leave(self._holder)

    async def expire(self) -> None:
        """Deletes expired leases."""
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
                # Not returned to the database: the next exchange offers them again.
                slots.granted += one.given
            raise
        for slots, one in exchanges.items():
            if one.wanted:
                slots.are_granted(granted[slots.scope], self.clock())
            if slots.spare:  # the requests that waited for them have left
                self._offered.add(slots)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        # Permits that are not returned are free when their lease expires.
        except StoreError as error:
            self._down_until = self.clock() + DOWN_S
            log.warning("slots_not_shared", extra={"reason": str(error)})


async def enter(slots: Sequence[ConcurrencyLimit]) -> None:
    """Takes a permit of each limit. Raises `RequestsLimited`, and has taken none then."""
    for place, one in enumerate(slots):
        try:
            await one.enter()
        except BaseException:
            leave(slots[:place])
            raise


def leave(slots: Sequence[ConcurrencyLimit]) -> None:
    """Returns a permit of each limit."""
    for one in slots:
        one.leave()
