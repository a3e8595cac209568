"""Which models are in memory: loaded on demand, unloaded at rest or for others, within a budget.

A model that is wanted and not there is loaded. Where it does not fit beside the others, those are
unloaded that have rested longest, and then those at work: they take no new request, finish what
they have begun, and go. Whoever wants them meanwhile waits, for a bounded time and in a bounded
number, and gets them back in its turn. So requests for two models that do not fit together take
turns, and none is cut off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from llm_backend.backends.local.model_handle import LoadQueueLimits, LocalModelHandle, MakeEngine
from llm_backend.errors import InvalidRequest

__all__ = ["LocalModelManager"]

log = logging.getLogger(__name__)


class LocalModelManager:
    """The engines that are in memory, in `budget_bytes` at most (None: in any number)."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.handles: list[LocalModelHandle] = []
        self._promised = 0  # bytes that are kept free for the one whose turn it is
        self._turns = asyncio.Lock()  # who needs the room of others comes one by one
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for handle in self.handles:
            handle.stay()
        engines = [handle.engine for handle in self.handles if handle.engine is not None]
        await asyncio.gather(*(engine.close() for engine in engines))

    @property
    def held_bytes(self) -> int:
        """What the engines in memory take, by their estimates."""
        return sum(handle.held_bytes for handle in self.handles)

    def handle(
        self,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: LoadQueueLimits | None = None,
        idle_unload_s: float | None = None,
    ) -> LocalModelHandle:
        """A place more, for this model."""
        handle = LocalModelHandle(
            self, name, make, needs, patience=patience, idle_unload_s=idle_unload_s
        )
        self.add(handle)
        return handle

    def add(self, handle: LocalModelHandle) -> None:
        """A place more."""
        self.handles.append(handle)

    async def remove(self, handle: LocalModelHandle) -> None:
        """A place less, once all that was begun there is finished."""
        handle.is_removed = True
        self.changed()
        await handle.drained()
        await self._vacate(handle)
        self.handles.remove(handle)

    async def start(self, handle: LocalModelHandle) -> bool:
        """Begin to load a model if it fits beside the others; does not wait for it. Raises
        `InvalidRequest` for one that never fits."""
        needed = await self._needed(handle)
        if not self._fits(needed):
            log.info("model_waits_for_room", extra={"model": handle.name, "bytes": needed})
            return False
        self._start(handle, needed)
        return True

    async def load(self, handle: LocalModelHandle) -> None:
        """Begin to load a model, once others have made room for it."""
        needed = await self._needed(handle)
        log.info("model_wanted", extra={"model": handle.name, "bytes": needed})
        if self._fits(needed):
            self._start(handle, needed)
            return
        async with self._turns:
            self._promised = needed
            try:
                while not self._fits(0):
                    await self._make_room()
            finally:
                self._promised = 0
            self._start(handle, needed)

    async def unload(self, handle: LocalModelHandle) -> None:
        """Free a model's memory, once all that was begun is finished."""
        await self._vacate(handle)

    def unload_behind(self, handle: LocalModelHandle) -> None:
        """Free the memory of a model that is at rest, without waiting."""
        if not handle.users and handle.engine is not None:
            self.begin(self._vacate(handle))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that nobody waits for; it is ended when the room is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def changed(self) -> None:
        """What is in memory is another; for rooms that must tell somebody."""

    async def emptied(self, handle: LocalModelHandle) -> None:
        """Returns when nobody elsewhere uses the engine, which takes nothing new; for rooms whose
        engines others use, too."""

    def next_door(self) -> Path | None:
        """Where the next engine lets others in; None lets nobody in."""
        return None

    async def _needed(self, handle: LocalModelHandle) -> int:
        needed = await handle.needs() if self.budget_bytes is not None else 0
        if self.budget_bytes is not None and needed > self.budget_bytes:
            raise InvalidRequest(
                f"`{handle.name}` would take about {_memory_sentence(needed)} of memory, and local "
                f"models may take {_memory_sentence(self.budget_bytes)}: give it fewer `slots` or "
                "`context_tokens`, a smaller `cache_type`, or raise `memory_budget`.",
                param="model",
                code="model_too_large",
            )
        return needed

    def _fits(self, more: int) -> bool:
        held = self.held_bytes + self._promised + more
        return self.budget_bytes is None or held <= self.budget_bytes

    def _start(self, handle: LocalModelHandle, needed: int) -> None:
        engine = handle.make(self.next_door())
        engine.start()
        handle.engine, handle.held_bytes = engine, needed
        if not handle.users:
            handle.rest()
        self.changed()

    async def _make_room(self) -> None:
        """Unload as many as must go: those at rest before those at work, the longest unused
        first."""
        assert self.budget_bytes is not None, "there is room without end"
        excess = self.held_bytes + self._promised - self.budget_bytes
        going = [handle for handle in self.handles if handle.engine is not None]
        going.sort(key=lambda handle: (not handle.is_leaving, handle.users > 0, handle.used_at))
        freed, chosen = 0, []
        for handle in going:
            if freed >= excess:
                break
            chosen.append(handle)
            freed += handle.held_bytes
        await asyncio.gather(*(self._vacate(handle) for handle in chosen))

    async def _vacate(self, handle: LocalModelHandle) -> None:
        if handle.engine is None:
            return
        if handle.is_leaving:
            await handle.gone.wait()
            return
        handle.is_leaving = True
        handle.gone.clear()
        handle.stay()
        self.changed()
        try:
            await handle.drained()
            await self.emptied(handle)
            await handle.engine.close()
            handle.engine, handle.held_bytes = None, 0
            log.info("model_unloaded", extra={"model": handle.name})
        finally:
            handle.is_leaving = False
            handle.gone.set()
            self.changed()


def _memory_sentence(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
