"""Fair queue: requests that wait for a resource, served round-robin by caller. Fair semaphore:
permits that are granted in this order."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_backend.errors import ServiceUnavailable

Resource = TypeVar("Resource")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiter(Generic[Resource]):
    """One waiting request, and a future of its resource."""

    fairness_key: str
    group: Hashable
    acquire: Callable[[], Resource | None]
    granted: asyncio.Future[Resource]


class FairQueue(Generic[Resource]):
    """Callers are served round-robin, and each caller's own requests first in, first out. Requests
    with the same fairness key are of one caller.

    At most `depth` requests wait; if the queue is full, the caller with the most waiting requests
    loses its newest one. If a request is cancelled after it was granted a resource and before
    `wait` returns, `release` gets the resource. `busy_message` begins the messages of errors.
    """

    def __init__(
        self,
        release: Callable[[Resource], None],
        *,
        depth: int,
        busy_message: str = "The server is busy",
    ) -> None:
        self._release = release
        self._depth = depth
        self._busy_message = busy_message
        # By fairness key, in round-robin order.
        self._waiting: dict[str, deque[_Waiter[Resource]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def wait(
        self,
        fairness_key: str,
        acquire: Callable[[], Resource | None],
        *,
        timeout_s: float,
        group: Hashable = None,
    ) -> Resource:
        """Waits for this request's turn, and returns the result of `acquire`, which returns None
        while nothing is free. Requests of equal `group` wait for the same resources. Raises
        `ServiceUnavailable` after `timeout_s`, or if the queue is full."""
        self._make_room(fairness_key)
        granted: asyncio.Future[Resource] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(fairness_key=fairness_key, group=group, acquire=acquire, granted=granted)
        self._waiting.setdefault(fairness_key, deque()).append(waiter)
        is_granted = False
        try:
            async with asyncio.timeout(timeout_s):
                resource = await granted
                is_granted = True
        except TimeoutError:
            raise self._overload_error(f"this request has waited for {timeout_s:g} s") from None
        finally:
            if not is_granted:
                self._remove(waiter)
        return resource

    def grant_next(self) -> bool:
        """Grants a resource to the next request in turn. Returns False if no request can get
        one."""
        busy: set[Hashable] = set()  # groups whose resources are all in use
        for waiters in self._waiting.values():
            for waiter in waiters:
                if waiter.group in busy or waiter.granted.done():
                    continue
                if (resource := waiter.acquire()) is not None:
                    self._grant(waiter, resource)
                    return True
                busy.add(waiter.group)
        return False

    def _grant(self, waiter: _Waiter[Resource], resource: Resource) -> None:
        waiters = self._waiting.pop(waiter.fairness_key)
        waiters.remove(waiter)
        if waiters:
            self._waiting[waiter.fairness_key] = waiters  # after all others
        waiter.granted.set_result(resource)

    def _remove(self, waiter: _Waiter[Resource]) -> None:
        """Removes a request that stops waiting; a resource that it got meanwhile is released."""
        waiters = self._waiting.get(waiter.fairness_key)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[waiter.fairness_key]
            # A request may have come between the cancellation of this one and its removal: it then
            # queued behind this one although a resource was free.
            self.grant_next()
        granted = waiter.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._release(granted.result())

    def _make_room(self, fairness_key: str) -> None:
        if len(self) < self._depth:
            return
        own = len(self._waiting.get(fairness_key, ()))
        longest = max(self._waiting.values(), key=len, default=deque[_Waiter[Resource]]())
        if own + 1 >= len(longest):
            raise self._overload_error("its queue is full")
        newest = longest.pop()
        if not newest.granted.done():  # otherwise the request was cancelled or has timed out
            newest.granted.set_exception(self._overload_error("its queue is full"))

    def _overload_error(self, reason: str) -> ServiceUnavailable:
        return ServiceUnavailable(f"{self._busy_message}, and {reason}; try again later.")


class FairSemaphore:
    """Semaphore of `capacity` permits. At most `depth` requests wait for one, each for at most
    `timeout_s`."""

    def __init__(self, capacity: int, *, depth: int, timeout_s: float) -> None:
        self._free = capacity
        self._timeout_s = timeout_s
        self._queue: FairQueue[bool] = FairQueue(lambda _: self.release(), depth=depth)

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Takes a permit if one is free and no request waits; the caller must `release` it."""
        return not len(self._queue) and self._take()

    async def acquire(self, fairness_key: str) -> None:
        """Waits for a permit, which must be `release`d. Raises `ServiceUnavailable`."""
        if not self.try_acquire():
            await self._queue.wait(
                fairness_key, lambda: self._take() or None, timeout_s=self._timeout_s
            )

    def release(self) -> None:
        """Returns a permit, which the next waiting request gets."""
        self._free += 1
        self._queue.grant_next()

    @asynccontextmanager
    async def hold(self, fairness_key: str) -> AsyncIterator[float]:
        """Holds a permit within the context, and yields the seconds that the caller has waited for
        it. Raises `ServiceUnavailable`."""
        arrived_s = time.monotonic()
        await self.acquire(fairness_key)
        try:
            yield time.monotonic() - arrived_s
        finally:
            self.release()

    def _take(self) -> bool:
        is_free = self._free > 0
        self._free -= is_free
        return is_free
