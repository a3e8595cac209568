"""Group commit: concurrent writes share one transaction; each request waits for its own.

The store's `WriteQueue` runs several units of work in one transaction; `GroupCommit` makes one unit
of work of many items.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")

MAX_BATCH_ITEMS = 256  # in one write: the first item waits for all of them


class GroupCommit(Generic[Item]):
    """Collects items during a write and writes all of them together in the next one.

    `write_all` returns for each item, in order, the error of its write, or None.
    """

    def __init__(
        self, write_all: Callable[[Sequence[Item]], Awaitable[Sequence[Exception | None]]]
    ) -> None:
        self._write_all = write_all
        self._waiting: list[tuple[Item, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, item: Item) -> None:
        """Returns once the item is written. Raises the error of its write. Cancelling the caller
        does not withdraw the item."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writing is None:
            # An empty context: the write belongs to many requests, not to the current one.
            self._writing = asyncio.create_task(self._write(), context=Context())
        try:
            await future
        finally:
            del future  # its error refers to this frame: the cycle would need the collector

    async def wait_idle(self) -> None:
        """Waits until all items are written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MAX_BATCH_ITEMS]
                del self._waiting[:MAX_BATCH_ITEMS]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: Sequence[tuple[Item, asyncio.Future[None]]]) -> None:
        writing = self._write_all([item for item, _ in batch])
        (outcome,) = await asyncio.gather(writing, return_exceptions=True)
        failures: Sequence[BaseException | None]
        failures = [outcome] * len(batch) if isinstance(outcome, BaseException) else outcome
        for (_, future), failure in zip(batch, failures, strict=True):
            if future.done():
                continue
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)
