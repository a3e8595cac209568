"""Model manager: loads models on demand and unloads them, within a memory budget.

A request for a model that is not in memory loads it. If it does not fit beside the loaded models,
idle ones are unloaded first (least recently used first), then busy ones: a busy model accepts no
new request, finishes its running ones (drains), and is unloaded. Requests for it meanwhile wait,
bounded in time and number, and it is loaded again in its turn. So requests for two models that do
not fit together alternate, and no running request is aborted.
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
    """Engines in memory, which take `budget_bytes` at most (None: no limit)."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.handles: list[LocalModelHandle] = []
        self._promised = 0  # bytes reserved for the model that is loaded next
        self._turns = asyncio.Lock()  # loads that must unload other models run one by one
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
        """Estimated memory of all loaded engines, in bytes."""
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
        """Creates and registers a handle for this model."""
        handle = LocalModelHandle(
            self, name, make, needs, patience=patience, idle_unload_s=idle_unload_s
        )
        self.add(handle)
        return handle

    def add(self, handle: LocalModelHandle) -> None:
        """Registers a model handle."""
        self.handles.append(handle)

    async def remove(self, handle: LocalModelHandle) -> None:
        """Drains a model handle (its running requests finish), unloads it and removes it."""
        handle.is_removed = True
        self.changed()
        await handle.drained()
        await self._vacate(handle)
        self.handles.remove(handle)

    async def start(self, handle: LocalModelHandle) -> bool:
        """Begins to load a model if it fits beside the loaded ones; does not wait for it.

        Returns whether it fits. Raises `InvalidRequest` for a model larger than the budget."""
        needed = await self._needed(handle)
        if not self._fits(needed):
            log.info("model_waits_for_room", extra={"model": handle.name, "bytes": needed})
            return False
        self._start(handle, needed)
        return True

    async def load(self, handle: LocalModelHandle) -> None:
        """Begins to load a model, after unloading others if there is not enough memory."""
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
        """Drains a model (its running requests finish) and unloads it."""
        await self._vacate(handle)

    def unload_behind(self, handle: LocalModelHandle) -> None:
        """Unloads an idle model in a background task."""
        if not handle.users and handle.engine is not None:
            self.begin(self._vacate(handle))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a background task, which is cancelled when the manager is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def changed(self) -> None:
        """Hook for subclasses: called when the set or the state of loaded models has changed."""

    async def emptied(self, handle: LocalModelHandle) -> None:
        """Hook for subclasses that share engines: waits until no other process uses the engine,
        which accepts no new request."""

    def next_door(self) -> Path | None:
        """Socket path of the next engine for other processes; None if it has none."""
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
        """Unloads models until the budget is kept: idle before busy ones, least recently used
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
