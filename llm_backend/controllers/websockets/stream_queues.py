"""Queues of one connection's requests: one for each `stream_id`; streams run concurrently."""

import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.errors import RateLimited

Work = Callable[[], Coroutine[None, None, None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _QueuedWork:
    work: Work
    size_bytes: int


class StreamQueues:
    """Runs the work of each stream in order of arrival, and the streams concurrently. Limits the
    number of streams, the number of queued requests, and the total size of these."""

    def __init__(self, *, streams_limit: int, waiting_limit: int, waiting_limit_bytes: int) -> None:
        self._streams_limit = streams_limit
        self._waiting_limit = waiting_limit
        self._waiting_limit_bytes = waiting_limit_bytes
        self._waiting: dict[str | None, deque[_QueuedWork]] = {}  # by active stream
        self._idle_since_s = time.monotonic()
        self._tasks = BackgroundTasks()

    def add(self, stream: str | None, work: Work, size_bytes: int) -> None:
        """Queues the work of a request of `size_bytes` in its stream. Raises `RateLimited` beyond
        a limit."""
        if stream in self._waiting:
            self._check_capacity(size_bytes)
            self._waiting[stream].append(_QueuedWork(work=work, size_bytes=size_bytes))
            return
        if len(self._waiting) >= self._streams_limit:
            raise RateLimited(
                f"This connection has {self._streams_limit} streams already; wait until one ends.",
                param="stream_id",
                code="websocket_stream_limit_reached",
            )
        self._waiting[stream] = deque()
        self._tasks.start(self._run(stream, work))

    @property
    def idle_s(self) -> float:
        """Seconds since the last stream ended; 0 while one is active."""
        return 0.0 if self._waiting else time.monotonic() - self._idle_since_s

    async def aclose(self) -> None:
        """Cancels all unfinished work."""
        await self._tasks.cancel()

    def _check_capacity(self, size_bytes: int) -> None:
        waiting = [one.size_bytes for queue in self._waiting.values() for one in queue]
        if len(waiting) >= self._waiting_limit:
            raise RateLimited(
                f"{self._waiting_limit} requests of this connection wait already.",
                code="websocket_queue_limit_reached",
            )
        if sum(waiting) + size_bytes > self._waiting_limit_bytes:
            raise RateLimited(
                f"Requests of this connection that wait would have more than "
                f"{self._waiting_limit_bytes:,} bytes (`body_limit_bytes`).",
                code="websocket_queue_limit_reached",
            )

    async def _run(self, stream: str | None, first: Work) -> None:
        try:
            await first()
            while self._waiting[stream]:
                await self._waiting[stream].popleft().work()
        finally:
            del self._waiting[stream]
            self._idle_since_s = time.monotonic()
