"""How many requests of a key or a project run at once, at this server or at all that share a
database.

Shared ones are held by a lease, a few at a time where there are many, so that the database is asked
once in several requests; what is not needed is given back at once. While the database cannot be
used, each server counts the whole limit by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from secrets import token_hex
from typing import Any, NoReturn

from llm_backend.errors import RequestsLimited
from llm_backend.store import StoreError
from llm_backend.store.administration import Running

__all__ = ["SharedSlots", "Slots", "enter", "leave"]

log = logging.getLogger(__name__)

BLOCKS = 20  # that a limit is taken in: of fewer than so many, each is taken for itself
LEASE_S = 30  # after which a dead server's are there for others
ASK_AGAIN_S = 0.25  # after there were none
DOWN_S = 5.0  # for which a database that could not be used is left alone
BUSY_S = 1.0  # after which somebody who had too many requests at once may come back


class Slots:
    """Those of one scope: `most` in all, `granted` to this server, of which some are `running`."""

    __slots__ = ("_asking", "_shared", "_vain_until", "granted", "most", "running", "scope")

    def __init__(self, scope: str, most: int, shared: "SharedSlots | None" = None) -> None:
        self.scope = scope
        self.most = most
        self.running = 0
        self.granted = 0 if shared else most
        self._shared = shared
        self._asking = asyncio.Lock()
        self._vain_until = 0.0

    async def enter(self) -> None:
        """Takes one. Raises `RequestsLimited` where there is none."""
        if self.running >= self.granted and self._shared is not None:
            async with self._asking:
                await self._ask(self._shared)
        if self.running >= self.granted and not self._is_alone:
            raise self._full()
        self.running += 1

    def leave(self) -> None:
        """Gives it back; to others too, beyond a few that are kept for who comes next."""
        self.running -= 1
        block, unused = self.most // BLOCKS, self.granted - self.running
        if self._shared is not None and unused > 2 * block:
            self.granted -= unused - block
            self._shared.give_back(self.scope, unused - block)

    @property
    def _is_alone(self) -> bool:
        is_down = self._shared is not None and self._shared.is_down
        return is_down and self.running < self.most

    async def _ask(self, shared: "SharedSlots") -> None:
        missing = self.running + 1 - self.granted
        if missing <= 0 or shared.clock() < self._vain_until:
            return
        granted = await shared.take(self.scope, max(missing, self.most // BLOCKS), self.most)
        self.granted += granted
        if not granted:
            self._vain_until = shared.clock() + ASK_AGAIN_S

    def _full(self) -> RequestsLimited:
        where = "" if self._shared is None else ", at all servers together"
        return RequestsLimited(
            f"{self.scope} may have {self.most} requests running at once{where}, and has. Wait for "
            "one to end.",
            retry_after_s=BUSY_S,
            more_headers={},
        )


class SharedSlots:
    """What this server holds of those that are shared."""

    def __init__(self, stored: Running, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._stored = stored
        self._holder = token_hex(8)
        self._down_until = 0.0
        self._behind: set[asyncio.Task[None]] = set()

    @property
    def is_down(self) -> bool:
        """Whether the database could not be used a moment ago."""
        return self.clock() < self._down_until

    async def take(self, scope: str, wanted: int, most: int) -> int:
        """How many of those wanted there are. Who is cancelled meanwhile has taken none."""
        taking = asyncio.create_task(self._taken(scope, wanted, most))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._do(self._undone(scope, taking))
            raise

    async def _taken(self, scope: str, wanted: int, most: int) -> int:
        if self.is_down:
            return 0
        now = int(self.clock())
        try:
            return await self._stored.take(
                scope, holder=self._holder, wanted=wanted, most=most, now=now, until=now + LEASE_S
            )
        except StoreError as error:
            self._down_until = self.clock() + DOWN_S
            _tell(error)
            return 0

    async def _undone(self, scope: str, taking: asyncio.Task[int]) -> None:
        if number := await taking:
            await _told(self._stored.give_back(scope, holder=self._holder, number=number))

    def give_back(self, scope: str, number: int) -> None:
        """So many are there for others, a moment later."""
        self._do(_told(self._stored.give_back(scope, holder=self._holder, number=number)))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def renew_forever(self) -> NoReturn:
        """Holds what this server has."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self.renew()

    async def renew(self) -> None:
        """Holds it for another while."""
        await _told(self._stored.renew(self._holder, until=int(self.clock()) + LEASE_S))

    async def leave(self) -> None:
        """This server ends."""
        await asyncio.gather(*self._behind)
        await _told(self._stored.leave(self._holder))

    async def expire(self) -> None:
        """Forgets what is over."""
        await self._stored.forget(now=int(self.clock()))


async def enter(slots: Sequence[Slots]) -> None:
    """Takes one of each. Raises `RequestsLimited`, and has taken none then."""
    for place, one in enumerate(slots):
        try:
            await one.enter()
        except BaseException:
            leave(slots[:place])
            raise


def leave(slots: Sequence[Slots]) -> None:
    """Gives one of each back."""
    for one in slots:
        one.leave()


async def _told(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except StoreError as error:  # what is not given back is free when its lease is over
        _tell(error)


def _tell(error: StoreError) -> None:
    log.warning("slots_not_shared", extra={"reason": str(error)})
