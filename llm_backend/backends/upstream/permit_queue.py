"""Permit queue: requests that wait for a permit of an upstream, fair between callers."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from llm_backend.errors import Overloaded

__all__ = ["RETRY_AFTER_S", "PermitQueue", "busy"]

WAITING_MOST = 1000  # each keeps a connection and a body in memory
LOOK_AGAIN_S = 0.25  # polling while requests wait: the end of an ejection has no event
RETRY_AFTER_S = 1.0


class PermitCount(Protocol):
    """Counter of permits: `promised` are given to requests that have not begun yet."""

    promised: int


Place = TypeVar("Place", bound=PermitCount)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiter(Generic[Place]):
    """One waiting request, and a future of its permit."""

    who: str
    among: Hashable
    free: Callable[[], Sequence[Place]]
    given: asyncio.Future[Place]


class PermitQueue(Generic[Place]):
    """Requests that wait for upstreams at their concurrency limit; `choose` selects a free one.

    Callers get permits round-robin, and each caller's own requests first in, first out. At most
    `most` requests wait; if the queue is full, the caller with the most requests loses its last.
    """

    def __init__(
        self, choose: Callable[[Sequence[Place]], Place], *, most: int = WAITING_MOST
    ) -> None:
        self._choose = choose
        self._most = most
        self._waiting: dict[str, deque[_Waiter[Place]]] = {}  # by caller, in round-robin order
        self._looking: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return sum(map(len, self._waiting.values()))

    async def place(
        self, who: str, *, among: Hashable, free: Callable[[], Sequence[Place]], within_s: float
    ) -> Place:
        """Waits for this request's turn and returns one of the upstreams that are `free` then.

        Requests with equal `among` have the same upstreams free. The caller sends its request
        before it awaits anything else. Raises `Overloaded` after `within_s`, or if the queue is
        full.
        """
        self._make_way(who)
        given: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(who=who, among=among, free=free, given=given)
        self._waiting.setdefault(who, deque()).append(waiter)
        self._look_later()
        place: Place | None = None
        try:
            async with asyncio.timeout(within_s):
                place = await given
        except TimeoutError:
            raise busy() from None
        finally:
            if place is None:
                self._give_up(waiter)
        place.promised -= 1
        return place

    def let_in(self) -> None:
        """Gives free permits to waiting requests in their turn."""
        while self._waiting and (found := self._next()):
            waiter, place = found
            theirs = self._waiting.pop(waiter.who)
            theirs.remove(waiter)
            if theirs:
                self._waiting[waiter.who] = theirs  # behind all others
            place.promised += 1
            waiter.given.set_result(place)

    def _next(self) -> tuple[_Waiter[Place], Place] | None:
        full: set[Hashable] = set()
        for theirs in self._waiting.values():
            for waiter in theirs:
                if waiter.among in full or waiter.given.done():
                    continue
                if free := waiter.free():
                    return waiter, self._choose(free)
                full.add(waiter.among)
        return None

    def _give_up(self, waiter: _Waiter[Place]) -> None:
        """Removes a waiting request. A permit given meanwhile goes to the next request."""
        theirs = self._waiting.get(waiter.who)
        if theirs and waiter in theirs:
            theirs.remove(waiter)
            if not theirs:
                del self._waiting[waiter.who]
        given = waiter.given
        if given.done() and not given.cancelled() and given.exception() is None:
            given.result().promised -= 1
            self.let_in()

    def _make_way(self, who: str) -> None:
        if self.waiting < self._most:
            return
        most = max(self._waiting, key=lambda one: len(self._waiting[one]))
        theirs = self._waiting[most]
        if len(self._waiting.get(who, ())) + 1 >= len(theirs):
            raise busy()
        last = theirs.pop()
        if not last.given.done():
            last.given.set_exception(busy())

    def _look_later(self) -> None:
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        self._looking = None
        self.let_in()
        if self._waiting:
            self._look_later()


def busy() -> Overloaded:
    """Returns the error of a request without a permit."""
    message = "Every upstream that could answer is busy; try again."
    return Overloaded(message, retry_after_s=RETRY_AFTER_S)
