"""Write-behind buffer: items written in batches after their answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

PAUSE_S = 0.05  # waits for more items: a write costs much, a further row little
MAX_ITEMS = 4096  # two seconds of small chats, while a slow disk syncs; each holds its parsed body
MAX_BYTES = 4 * 1024 * 1024  # bytes of JSON text; parsed, it takes several times that


@dataclass(kw_only=True, eq=False)
class _WriteBatch(Generic[Item]):
    """Batch of items written together."""

    items: list[Item] = field(default_factory=list)
    size_bytes: int = 0
    written: asyncio.Event = field(default_factory=asyncio.Event)


class WriteBehindBuffer(Generic[Item]):
    """Bounded buffer of items that `write_all` writes later.

    `write_all` gets the items taken since its last call, in order. It logs its own errors: no
    caller gets them.
    """

    def __init__(
        self,
        write_all: Callable[[Sequence[Item]], Awaitable[None]],
        *,
        pause_s: float = PAUSE_S,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._write_all = write_all
        self._pause_s = pause_s
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: _WriteBatch[Item] = _WriteBatch()
        self._in_flight: _WriteBatch[Item] = _WriteBatch()
        self._flush_requested = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def try_add(self, item: Item, size_bytes: int) -> bool:
        """Queues the item and returns True if there is room."""
        waiting, in_flight = self._waiting, self._in_flight
        if len(waiting.items) + len(in_flight.items) >= self._max_items:
            return False
        if waiting.size_bytes + in_flight.size_bytes + size_bytes > self._max_bytes:
            return False
        waiting.items.append(item)
        waiting.size_bytes += size_bytes
        if self._writing is None:
            self._start()
        return True

    async def flush(self) -> None:
        """Waits until all queued items are written, without the pause for more."""
        last = self._waiting if self._waiting.items else self._in_flight
        if last.items:
            self._flush_requested.set()
            await last.written.wait()

    def _start(self) -> None:
        # An empty context: the write belongs to many requests, not to the current one.
        self._writing = asyncio.create_task(self._write(), context=Context())

    async def _write(self) -> None:
        await self._pause()
        self._in_flight, self._waiting = self._waiting, _WriteBatch()
        try:
            await self._write_all(self._in_flight.items)
        finally:
            self._in_flight.written.set()
            self._in_flight = _WriteBatch()
            self._writing = None
            if self._waiting.items:
                self._start()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._flush_requested.wait()
        self._flush_requested.clear()
