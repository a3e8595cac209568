"""Who waits until an upstream has room: callers take turns, however many requests each has sent."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from llm_backend.errors import Overloaded

__all__ = ["RETRY_AFTER_S", "PermitQueue", "busy"]

WAITING_MOST = 1000  # each holds a connection and a body
LOOK_AGAIN_S = 0.25  # while somebody waits: an upstream's ejection ends without a word
RETRY_AFTER_S = 1.0


class PermitCount(Protocol):
    """What has room: `promised` are its places for those who are about to take them."""

    promised: int


Place = TypeVar("Place", bound=PermitCount)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiter(Generic[Place]):
    """One request, and the place that it is given."""

    who: str
    among: Hashable
    free: Callable[[], Sequence[Place]]
    given: asyncio.Future[Place]


class PermitQueue(Generic[Place]):
    """Requests in front of upstreams that are full; `choose` says which of several free ones.

    A place goes to the caller whose turn it is, and among a caller's own requests to the one that
    has waited longest. `most` wait; where the line is full, whoever has most in it loses the last.
    """

    def __init__(
        self, choose: Callable[[Sequence[Place]], Place], *, most: int = WAITING_MOST
    ) -> None:
        self._choose = choose
        self._most = most
        self._waiting: dict[str, deque[_Waiter[Place]]] = {}  # callers in turn
        self._looking: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    async def place(
        self, who: str, *, among: Hashable, free: Callable[[], Sequence[Place]], within_s: float
    ) -> Place:
        """One of those that are `free`, as soon as it is this request's turn; whoever waits `among`
        the same finds the same free. To be taken before anything else is awaited.

        Raises `Overloaded` where that takes longer than `within_s`, and where too many wait.
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
        """There may be room: it is given to those whose turn it is."""
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
        """The request waits no more. A place that it was given meanwhile goes to the next."""
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
    """The error of who gets no place."""
    message = "Every upstream that could answer is busy; try again."
    return Overloaded(message, retry_after_s=RETRY_AFTER_S)
