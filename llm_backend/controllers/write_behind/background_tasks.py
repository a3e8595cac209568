"""Work that nobody waits for: what is stored after its client has left."""

import asyncio
from collections.abc import Coroutine

__all__ = ["BackgroundTasks"]


class BackgroundTasks:
    """Runs coroutines behind their callers; `settle` waits for all that are left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Do it by and by. It says itself what goes wrong: nobody is there to be told."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Returns when all is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)
