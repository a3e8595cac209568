"""Background tasks: writes that no request waits for, such as after a disconnect."""

import asyncio
from collections.abc import Coroutine

__all__ = ["BackgroundTasks"]


class BackgroundTasks:
    """Runs coroutines in the background; `settle` waits for all of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Starts a coroutine, which must log its own errors: no caller gets them."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Waits for all tasks."""
        while self._tasks:
            await asyncio.wait(self._tasks)
