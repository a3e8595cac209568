"""Fair queue of waiting requests: callers are served in turn, however many each has sent."""

import asyncio
from collections import deque

from llm_backend.errors import Overloaded

__all__ = ["FairQueue"]

RETRY_AFTER_S = 1.0


class FairQueue:
    """Lets `room` requests run at once. `depth` wait at most, each `deadline_s` seconds at most.

    A free place goes to the next caller in turn, and among a caller's own requests to the oldest.
    If the queue is full, the caller with most waiting requests loses its newest one.
    """

    def __init__(self, room: int, *, depth: int, deadline_s: float) -> None:
        self._room = room
        self._depth = depth
        self._deadline_s = deadline_s
        self._running = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # callers in turn

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return sum(map(len, self._waiting.values()))

    def entered(self) -> bool:
        """Takes a place if one is free and no request waits; each entered request must `leave`."""
        if self._running >= self._room or self._waiting:
            return False
        self._running += 1
        return True

    async def enter(self, who: str) -> None:
        """Waits for a place; each entered request must `leave`. Raises `Overloaded`."""
        if self.entered():
            return
        self._make_way(who)
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        has_entered = False
        try:
            async with asyncio.timeout(self._deadline_s):
                await place
                has_entered = True
        except TimeoutError:
            raise Overloaded(
                f"The server is busy, and this request has waited for {self._deadline_s:g} s; "
                "try again later.",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        finally:
            if not has_entered:
                self._give_up(who, place)

    def leave(self) -> None:
        """Frees the place of a finished request for the next one."""
        self._running -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._running < self._room and self._waiting:
            who = next(iter(self._waiting))
            theirs = self._waiting.pop(who)
            place = theirs.popleft()
            if theirs:
                self._waiting[who] = theirs  # behind all others
            if not place.done():
                place.set_result(None)
                self._running += 1

    def _give_up(self, who: str, place: asyncio.Future[None]) -> None:
        """Removes a request that stops waiting; a place that it got meanwhile goes to the next."""
        theirs = self._waiting.get(who)
        if theirs and place in theirs:
            theirs.remove(place)
            if not theirs:
                del self._waiting[who]
        if place.done() and not place.cancelled() and place.exception() is None:
            self.leave()

    def _make_way(self, who: str) -> None:
        if self.waiting < self._depth:
            return
        most = max(self._waiting, key=lambda one: len(self._waiting[one]), default=who)
        own = len(self._waiting.get(who, ()))
        if own + 1 >= len(self._waiting.get(most, ())):
            raise _full()
        last = self._waiting[most].pop()
        if not last.done():  # otherwise the request was about to leave by itself
            last.set_exception(_full())


def _full() -> Overloaded:
    return Overloaded(
        "The server is busy, and as many requests wait as may; try again later.",
        retry_after_s=RETRY_AFTER_S,
    )
