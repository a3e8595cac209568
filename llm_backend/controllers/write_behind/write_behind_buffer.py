"""Write-behind buffer: items written in batches after their answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["WriteBehindBuffer"]

Item = TypeVar("Item")

PAUSE_S = 0.05  # for more items: a write costs much, a row little, and no request waits
ITEMS_MOST = 1024  # each holds its parsed body
BYTES_MOST = 4 * 1024 * 1024  # of JSON text; parsed, it takes several times that


@dataclass(kw_only=True, eq=False)
class _Load(Generic[Item]):
    """Batch of items written together."""

    items: list[Item] = field(default_factory=list)
    size_bytes: int = 0
    written: asyncio.Event = field(default_factory=asyncio.Event)


class WriteBehindBuffer(Generic[Item]):
    """Bounded buffer of items until `write_all` has written them.

    `write_all` gets the items taken since its last call, in order. It logs its own errors: no
    caller gets them.
    """

    def __init__(
        self,
        write_all: Callable[[Sequence[Item]], Awaitable[None]],
        *,
        pause_s: float = PAUSE_S,
        items_most: int = ITEMS_MOST,
        bytes_most: int = BYTES_MOST,
    ) -> None:
        self._write_all = write_all
        self._pause_s = pause_s
        self._items_most = items_most
        self._bytes_most = bytes_most
        self._gathered: _Load[Item] = _Load()
        self._on_its_way: _Load[Item] = _Load()
        self._is_wanted = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def takes(self, item: Item, size_bytes: int) -> bool:
        """Queues the item and returns True if there is room."""
        loads = (self._gathered, self._on_its_way)
        has_room = sum(len(load.items) for load in loads) < self._items_most
        if not has_room or sum(load.size_bytes for load in loads) + size_bytes > self._bytes_most:
            return False
        self._gathered.items.append(item)
        self._gathered.size_bytes += size_bytes
        if self._writing is None:
            self._begin()
        return True

    async def caught_up(self) -> None:
        """Waits until all queued items are written, without the pause for more."""
        last = self._gathered if self._gathered.items else self._on_its_way
        if last.items:
            self._is_wanted.set()
            await last.written.wait()

    def _begin(self) -> None:
        # An empty context: the write belongs to many requests, not to the current one.
        self._writing = asyncio.create_task(self._write(), context=Context())

    async def _write(self) -> None:
        await self._pause()
        self._on_its_way, self._gathered = self._gathered, _Load()
        try:
            await self._write_all(self._on_its_way.items)
        finally:
            self._on_its_way.written.set()
            self._on_its_way = _Load()
            self._writing = None
            if self._gathered.items:
                self._begin()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._is_wanted.wait()
        self._is_wanted.clear()
