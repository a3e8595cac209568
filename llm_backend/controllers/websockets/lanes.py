"""Lanes: queues of one connection's requests, concurrent with each other."""

from collections import deque
from collections.abc import Callable, Coroutine

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.errors import RateLimited

Work = Callable[[], Coroutine[None, None, None]]


class Lanes:
    """Runs the work of each lane in order of arrival, and lanes concurrently: at most
    `lanes_limit` lanes, and `waiting_limit` queued works."""

    def __init__(self, *, lanes_limit: int, waiting_limit: int) -> None:
        self._lanes_limit = lanes_limit
        self._waiting_limit = waiting_limit
        self._waiting: dict[str | None, deque[Work]] = {}  # by active lane
        self._tasks = BackgroundTasks()

    def add(self, lane: str | None, work: Work) -> None:
        """Queues work in its lane. Raises `RateLimited` beyond a limit."""
        if lane in self._waiting:
            if sum(map(len, self._waiting.values())) >= self._waiting_limit:
                raise RateLimited(
                    f"{self._waiting_limit} requests of this connection wait already.",
                    code="websocket_queue_limit_reached",
                )
            self._waiting[lane].append(work)
            return
        if len(self._waiting) >= self._lanes_limit:
            raise RateLimited(
                f"This connection has {self._lanes_limit} streams already; wait until one ends.",
                param="stream_id",
                code="websocket_stream_limit_reached",
            )
        self._waiting[lane] = deque()
        self._tasks.start(self._run(lane, work))

    @property
    def is_quiet(self) -> bool:
        """True if no lane is active."""
        return not self._waiting

    async def aclose(self) -> None:
        """Cancels all unfinished work."""
        await self._tasks.cancel()

    async def _run(self, lane: str | None, first: Work) -> None:
        try:
            await first()
            while self._waiting[lane]:
                await self._waiting[lane].popleft()()
        finally:
            del self._waiting[lane]
