"""Fair semaphore: limits the requests that run at once; callers of the others take turns."""

from llm_backend.fair_queue import FairQueue


class FairSemaphore:
    """Lets `capacity` requests run at once. Of the others `depth` wait at most, each `timeout_s` at
    most."""

    def __init__(self, capacity: int, *, depth: int, timeout_s: float) -> None:
        self._free = capacity
        self._timeout_s = timeout_s
        self._queue: FairQueue[bool] = FairQueue(lambda _: self.release(), depth=depth)

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Admits a request if there is capacity and none waits; it must `release`."""
        return not len(self._queue) and self._take()

    async def acquire(self, caller: str) -> None:
        """Waits until the request is admitted; it must `release`. Raises `Overloaded`."""
        if not self.try_acquire():
            await self._queue.wait(caller, lambda: self._take() or None, timeout_s=self._timeout_s)

    def release(self) -> None:
        """Lets the next request run instead of a finished one."""
        self._free += 1
        self._queue.grant_next()

    def _take(self) -> bool:
        is_free = self._free > 0
        self._free -= is_free
        return is_free
