"""Concurrency limits: how many requests of a key or a project may run at the same time, on this
server or on all servers that share a database. A request beyond the limit is answered with a 429.

Shared permits are leased from the database in blocks, so that it is queried once for several
requests; surplus permits are returned, and all permits of an idle scope with the next renewal. A
server makes one database call at a time, with a `LeaseChange` of each scope. The call locks all
scopes in one order, so that two servers cannot deadlock. While the database cannot be used, each
process enforces the whole limit by itself.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import NoReturn

from llm_backend.block_grants import BLOCKS, surplus
from llm_backend.errors import RETRY_AFTER_S, RequestsLimited
from llm_backend.store import StoreError
from llm_backend.store.administration import ConcurrencyLeases, LeaseChange

log = logging.getLogger(__name__)

LEASE_S = 30  # seconds after which permits of a dead server are free
LINGER_S = 0.02  # before surplus permits are returned: the next request may need them
RETRY_LEASE_S = 0.25  # after a change that granted none
DOWN_S = 5.0  # pause after a database error


class ConcurrencyLimit:
    """Permits of one scope: `limit` in all, `granted` to this server, `running` in use."""

    __slots__ = (
        "_refused_until", "_returns_all", "_shared", "_waiting", "granted", "limit", "running",
        "scope",
    )  # fmt: skip

    def __init__(
        self, scope: str, limit: int, shared: "SharedConcurrencyLimits | None" = None
    ) -> None:
        self.scope = scope
        self.limit = limit
        self.running = 0
        self.granted = 0 if shared else limit
        self._shared = shared
        self._waiting = 0
        self._returns_all = False
        self._refused_until = 0.0

    async def acquire(self) -> None:
        """Takes a permit. Raises `RequestsLimited` (429) if all are taken."""
        self._returns_all = False
        # Another request may use a permit that was granted for this one.
        while self.running >= self.granted and self._shared and self._can_request(self._shared):
            self._waiting += 1
            try:
                await self._shared.request_permits(self)
            finally:
                self._waiting -= 1
        if self.running >= self.granted and not self._may_exceed_grant:
            raise self._limit_error()
        self.running += 1

    def release(self) -> None:
        """Returns a permit. Surplus permits go to other servers, except for a reserve."""
        self.running -= 1
        if self._shared is not None and self.surplus:
            self._shared.offer(self)

    def build_lease_change(self) -> LeaseChange:
        """Returns the permits to give back and to request. The former are given up immediately."""
        returned, missing = self.surplus, self.running + self._waiting - self.granted
        self.granted -= returned
        requested = max(missing, self.limit // BLOCKS) if missing > 0 else 0
        return LeaseChange(
            scope=self.scope, returned=returned, requested=requested, limit=self.limit
        )

    def add_granted(self, number: int, now: float) -> None:
        """Adds permits that the database has granted."""
        self.granted += number
        if not number:
            self._refused_until = now + RETRY_LEASE_S

    def offer_all_if_idle(self) -> None:
        """Makes all permits surplus until the next request, if no request uses or awaits one."""
        self._returns_all = not self.running and not self._waiting

    @property
    def surplus(self) -> int:
        """Unused permits to return: once more than two blocks are unused, all but one block; all
        after `offer_all_if_idle`."""
        if self._returns_all:
            return self.granted
        return surplus(self.granted - self.running - self._waiting, self.limit // BLOCKS)

    @property
    def _may_exceed_grant(self) -> bool:
        """True while the database cannot be used, as long as this server alone stays within the
        whole limit."""
        is_down = self._shared is not None and self._shared.is_down
        return is_down and self.running < self.limit

    def _can_request(self, shared: "SharedConcurrencyLimits") -> bool:
        return not shared.is_down and shared.clock() >= self._refused_until

    def _limit_error(self) -> RequestsLimited:
        """Returns the 429 of this limit, with `Retry-After`."""
        where = "" if self._shared is None else ", on all processes and servers together"
        return RequestsLimited(
            f"Rate limit reached for {self.scope} on requests running at once{where}: Limit "
            f"{self.limit}, Used {self.limit}, Requested 1. "
            f"Please try again in {RETRY_AFTER_S:g}s.",
            retry_after_s=RETRY_AFTER_S,
            more_headers={},
        )


class SharedConcurrencyLimits:
    """Leases shared permits of all scopes from the database for this server."""

    def __init__(
        self, stored: ConcurrencyLeases, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self._stored = stored
        self._holder = token_hex(8)
        self._down_until = 0.0
        self._requested: dict[ConcurrencyLimit, asyncio.Future[None]] = {}
        self._offered: set[ConcurrencyLimit] = set()
        self._holding: set[ConcurrencyLimit] = set()  # those with permits of this server
        self._leased: Counter[str] = Counter()  # permits of each scope, as the database has them
        self._has_requests = asyncio.Event()
        self._lock = asyncio.Lock()
        self._change_task: asyncio.Task[None] | None = None

    @property
    def is_down(self) -> bool:
        """True for a while after a database error."""
        return self.clock() < self._down_until

    async def request_permits(self, limit: ConcurrencyLimit) -> None:
        """Waits for a change of leases that requests the missing permits; it may grant fewer."""
        if (change := self._requested.get(limit)) is None:
            change = self._requested[limit] = asyncio.get_running_loop().create_future()
            self._has_requests.set()
            self._start_changes()
        await asyncio.shield(change)

    def offer(self, limit: ConcurrencyLimit) -> None:
        """Returns surplus permits with the next change, unless a request takes them before. After
        a database error they are returned once a renewal has succeeded."""
        self._offered.add(limit)
        if not self.is_down:
            self._start_changes()

    async def wait_idle(self) -> None:
        """Waits until no change is pending."""
        if self._change_task is not None:
            await self._change_task

    async def renew_forever(self) -> NoReturn:
        """Renews the lease of this server periodically."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self.renew()

    async def renew(self) -> None:
        """Renews the lease once; then returns the permits of idle scopes, and surplus permits that
        an outage kept from it."""
        with self._log_errors():
            async with self._lock:
                until = int(self.clock()) + LEASE_S
                await self._stored.renew(self._holder, +self._leased, until=until)
            for limit in self._holding:
                limit.offer_all_if_idle()
                if limit.surplus:
                    self._offered.add(limit)
            self._start_changes()

    async def release_all(self) -> None:
        """Releases all permits of this server, at shutdown."""
        await self.wait_idle()
        with self._log_errors():
            await self._stored.release_all(self._holder)
            self._leased.clear()

    async def expire(self) -> None:
        """Deletes expired leases."""
        await self._stored.delete_expired(now=int(self.clock()))

    def _start_changes(self) -> None:
        if self._change_task is None or self._change_task.done():
            self._change_task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._requested or (self._offered and not self.is_down):
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._has_requests.wait()
            self._has_requests.clear()
            requested, self._requested = self._requested, {}
            offered, self._offered = self._offered, set()
            try:
                with self._log_errors():
                    await self._change_leases([*offered.union(requested)])
            finally:
                for change in requested.values():
                    change.set_result(None)

    async def _change_leases(self, limits: Sequence[ConcurrencyLimit]) -> None:
        changes = {limit: limit.build_lease_change() for limit in limits}
        pending = [one for one in changes.values() if one.returned or one.requested]
        if not pending:
            return
        now = int(self.clock())
        try:
            async with self._lock:
                granted = await self._stored.apply(
                    pending, holder=self._holder, now=now, until=now + LEASE_S
                )
                for one in pending:
                    self._leased[one.scope] += granted.get(one.scope, 0) - one.returned
        except StoreError:
            for limit, one in changes.items():
                # Not returned to the database: they are offered again.
                limit.granted += one.returned
                if one.returned:
                    self._offered.add(limit)
            raise
        for limit, one in changes.items():
            if one.requested:
                limit.add_granted(granted[limit.scope], self.clock())
            if limit.granted:
                self._holding.add(limit)
            else:
                self._holding.discard(limit)
            if limit.surplus:  # requests that waited for permits were cancelled
                self._offered.add(limit)

    @contextmanager
    def _log_errors(self) -> Iterator[None]:
        try:
            yield
        # The lease of permits that are not returned expires.
        except StoreError as error:
            self._down_until = self.clock() + DOWN_S
            log.warning("concurrency_limits_not_shared", extra={"reason": str(error)})


async def acquire_all(limits: Sequence[ConcurrencyLimit]) -> None:
    """Takes a permit of each limit. Raises `RequestsLimited` (429), and keeps no permit in that
    case."""
    for index, one in enumerate(limits):
        try:
            await one.acquire()
        except BaseException:
            release_all(limits[:index])
            raise


def release_all(limits: Sequence[ConcurrencyLimit]) -> None:
    """Returns a permit of each limit."""
    for one in limits:
        one.release()
