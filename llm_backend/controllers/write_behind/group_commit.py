"""Group commit: concurrent writes share one transaction; each request waits for its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

__all__ = ["GroupCommit"]

Item = TypeVar("Item")

ITEMS_MOST = 256  # in one write: the first item waits for all of them


class GroupCommit(Generic[Item]):
    """Collects items during a write and writes all of them together in the next one.

    `write_all` returns for each item, in order, the error of its write, or None.
    """

    def __init__(
        self, write_all: Callable[[Sequence[Item]], Awaitable[Sequence[Exception | None]]]
    ) -> None:
        self._write_all = write_all
        self._gathered: list[tuple[Item, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def written(self, item: Item) -> None:
        """Returns once the item is written. Raises the error of its write. Cancelling the caller
        does not withdraw the item."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append((item, written))
        if self._writing is None:
            # An empty context: the write belongs to many requests, not to the current one.
            self._writing = asyncio.create_task(self._write(), context=Context())
        await written

    async def settle(self) -> None:
        """Waits until all items are written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        try:
            while self._gathered:
                some = self._gathered[:ITEMS_MOST]
                del self._gathered[:ITEMS_MOST]
                await self._write_some(some)
        finally:
            self._writing = None

    async def _write_some(self, some: Sequence[tuple[Item, asyncio.Future[None]]]) -> None:
        writing = self._write_all([item for item, _ in some])
        (outcome,) = await asyncio.gather(writing, return_exceptions=True)
        failures: Sequence[BaseException | None]
        failures = [outcome] * len(some) if isinstance(outcome, BaseException) else outcome
        for (_, written), failure in zip(some, failures, strict=True):
            if written.done():
                continue
            if failure is None:
                written.set_result(None)
            else:
                written.set_exception(failure)
