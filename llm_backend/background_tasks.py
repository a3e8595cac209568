"""Background tasks: work that no caller waits for, such as a write after a disconnect."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Runs a coroutine while the context is open; then cancels it and waits for its end. An error
    that ends it is logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_error)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _log_error(task: asyncio.Task[object]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_failed", exc_info=error)


class BackgroundTasks:
    """Runs coroutines in the background; `wait_idle` waits for all of them, `cancel` ends them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: results of any type

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a coroutine; unless the task is awaited, it must log its own errors."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait_idle(self) -> None:
        """Waits for all tasks."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def wait_others(self) -> None:
        """Waits for the tasks so far, without the one that calls this."""
        if others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)

    @property
    def are_others_running(self) -> bool:
        """True if a task runs beside the one that asks."""
        return any(not task.done() for task in self._tasks - {asyncio.current_task()})

    async def cancel(self) -> None:
        """Cancels all tasks and waits for their ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
