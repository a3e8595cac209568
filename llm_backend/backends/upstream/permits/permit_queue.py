"""Permit queue: requests that wait for a permit of an upstream, fair between callers."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from llm_backend.errors import ServiceUnavailable
from llm_backend.fair_queue import FairQueue

WAITING_LIMIT = 1000  # each waiting request keeps a connection and a body in memory
POLL_S = 0.25  # interval while requests wait: no event reports the end of an ejection
_BUSY = "Every upstream that could answer is busy"


class CountedUpstream(Protocol):
    """An upstream whose permits are counted. `reserved` permits belong to requests that have left
    the queue but have not been sent yet."""

    reserved: int


UpstreamT = TypeVar("UpstreamT", bound=CountedUpstream)


class PermitQueue(Generic[UpstreamT]):
    """Requests that wait for upstreams at their concurrency limit; `choose` selects a free one."""

    def __init__(
        self, choose: Callable[[Sequence[UpstreamT]], UpstreamT], *, depth: int = WAITING_LIMIT
    ) -> None:
        self._choose = choose
        self._queue: FairQueue[UpstreamT] = FairQueue(
            self._release, depth=depth, busy_message=_BUSY
        )
        self._polling: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._queue)

    async def acquire(
        self,
        fairness_key: str,
        *,
        group: Hashable,
        free: Callable[[], Sequence[UpstreamT]],
        timeout_s: float,
    ) -> UpstreamT:
        """Waits for this request's turn and returns one of the upstreams that are `free` then.

        Requests of one `group` can use the same upstreams. The caller must send its request before
        it awaits anything else, since the permit is no longer reserved then. Raises
        `ServiceUnavailable` after `timeout_s`, or if the queue is full.
        """

        def reserve() -> UpstreamT | None:
            if not (upstreams := free()):
                return None
            upstream = self._choose(upstreams)
            upstream.reserved += 1
            return upstream

        self._poll_later()
        upstream = await self._queue.wait(fairness_key, reserve, group=group, timeout_s=timeout_s)
        upstream.reserved -= 1
        return upstream

    def grant(self) -> None:
        """Gives free permits to waiting requests in their turn."""
        while self._queue.grant_next():
            pass

    def _release(self, upstream: UpstreamT) -> None:
        upstream.reserved -= 1
        self.grant()

    def _poll_later(self) -> None:
        if self._polling is None:
            self._polling = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        self._polling = None
        self.grant()
        if len(self._queue):
            self._poll_later()


def busy_error() -> ServiceUnavailable:
    """Returns the error of a request without a permit."""
    return ServiceUnavailable(f"{_BUSY}; try again.")
