"""Model manager: loads models on demand and unloads them, within a memory budget.

A request for a model that is not in memory loads it. If the model does not fit beside the loaded
ones, idle models are unloaded, the least recently used first, and then busy models. A busy model
drains: it accepts no new request, finishes its running ones, and is unloaded. New requests for it
wait until it is loaded again, bounded in time and number. So two models that do not fit together
are in memory alternately, and no running request is aborted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from llm_backend.backends.local.local_handle import LocalModelHandle
from llm_backend.backends.local.model_handle import LoadQueueLimits, MakeEngine
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.errors import InvalidRequest, ModelNotFound
from llm_backend.model_files import format_size

log = logging.getLogger(__name__)


class LocalModelManager:
    """Loads and unloads engines, which together take at most `budget_bytes` (None: no limit)."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.handles: list[LocalModelHandle] = []
        self.tasks = BackgroundTasks()
        self._reserved_bytes = 0  # for the model that is loaded next
        self._load_lock = asyncio.Lock()  # loads that must unload other models run one by one

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.cancel()
        for handle in self.handles:
            handle.users.stop_idle_timer()
        engines = [handle.engine for handle in self.handles if handle.engine is not None]
        await asyncio.gather(*(engine.close() for engine in engines))

    @property
    def memory_bytes(self) -> int:
        """Estimated memory of all loaded engines, in bytes."""
        return sum(handle.memory_bytes for handle in self.handles)

    def add_model(
        self,
        name: str,
        make_engine: MakeEngine,
        estimate_bytes: Callable[[], Awaitable[int]],
        *,
        limits: LoadQueueLimits | None = None,
        idle_unload_s: float | None = None,
    ) -> LocalModelHandle:
        """Creates and registers a handle for this model."""
        handle = LocalModelHandle(
            self, name, make_engine, estimate_bytes, limits=limits, idle_unload_s=idle_unload_s
        )
        self.handles.append(handle)
        return handle

    def handle_of_model(self, model: str) -> LocalModelHandle:
        """Returns the handle of a model. Raises `ModelNotFound`."""
        for handle in reversed(self.handles):  # an older handle of the name may be draining
            if handle.name == model and not handle.is_removed:
                return handle
        raise ModelNotFound(model)

    async def remove(self, handle: LocalModelHandle) -> None:
        """Drains a model handle (its running requests finish), unloads it and removes it."""
        handle.is_removed = True
        self.notify_change()
        await handle.users.wait_until_unused()
        await self.unload(handle)
        self.handles.remove(handle)

    async def start_if_fits(self, handle: LocalModelHandle) -> bool:
        """Begins to load a model if it fits beside the loaded ones; does not wait for it.

        Returns whether it fits. Raises `InvalidRequest` for a model larger than the budget."""
        needed = await self._estimate_bytes(handle)
        if handle.engine is None and not self._fits(needed):
            log.info("model_load_deferred", extra={"model": handle.name, "bytes": needed})
            return False
        self._start(handle, needed)
        return True

    async def start_evicting_others(self, handle: LocalModelHandle) -> None:
        """Begins to load a model, after unloading others if there is not enough memory."""
        needed = await self._estimate_bytes(handle)
        log.info("model_load_requested", extra={"model": handle.name, "bytes": needed})
        if handle.engine is not None or self._fits(needed):
            self._start(handle, needed)
            return
        async with self._load_lock:
            self._reserved_bytes = needed
            try:
                while handle.engine is None and not self._fits(0):
                    await self._evict_models()
            finally:
                self._reserved_bytes = 0
            self._start(handle, needed)

    async def unload(self, handle: LocalModelHandle) -> None:
        """Drains a model (its running requests finish) and unloads it."""
        if handle.engine is None:
            return
        if handle.unload_done is not None:
            await handle.unload_done.wait()
            return
        unload_done = handle.unload_done = asyncio.Event()
        handle.users.stop_idle_timer()
        self.notify_change()
        try:
            await handle.users.wait_until_unused()
            await self.wait_until_released(handle)
            await handle.engine.close()
            handle.engine, handle.memory_bytes = None, 0
            log.info("model_unloaded", extra={"model": handle.name})
        finally:
            handle.unload_done = None
            unload_done.set()
            self.notify_change()

    def notify_change(self) -> None:
        """Hooks for subclasses: called when the set or the state of loaded models has changed."""

    async def wait_until_released(self, handle: LocalModelHandle) -> None:
        """Hooks for subclasses that share engines: waits until no other process uses a draining
        engine."""

    def next_socket_path(self) -> Path | None:
        """Socket path at which the next engine serves other processes; None if it serves none."""
        return None

    async def _estimate_bytes(self, handle: LocalModelHandle) -> int:
        needed = await handle.estimate_bytes() if self.budget_bytes is not None else 0
        if self.budget_bytes is not None and needed > self.budget_bytes:
            raise InvalidRequest(
                f"`{handle.name}` would take about {format_size(needed)} of memory, and local "
                f"models may take {format_size(self.budget_bytes)}: give it fewer `slots` or "
                "`context_tokens`, a smaller `cache_type`, or raise `memory_budget`.",
                param="model",
                code="model_too_large",
            )
        return needed

    def _fits(self, more: int) -> bool:
        used = self.memory_bytes + self._reserved_bytes + more
        return self.budget_bytes is None or used <= self.budget_bytes

    def _start(self, handle: LocalModelHandle, needed: int) -> None:
        """Begins to load a model, unless its loading has begun or the model was removed."""
        if handle.engine is not None or handle not in self.handles:
            return
        engine = handle.make_engine(self.next_socket_path())
        engine.start()
        handle.engine, handle.memory_bytes = engine, needed
        if not handle.users.count:
            handle.users.start_idle_timer()
        self.notify_change()

    async def _evict_models(self) -> None:
        """Unloads models until the budget is kept: idle before busy ones, least recently used
        first."""
        assert self.budget_bytes is not None, "without a budget every model fits"
        excess = self.memory_bytes + self._reserved_bytes - self.budget_bytes
        loaded = [handle for handle in self.handles if handle.engine is not None]
        loaded.sort(
            key=lambda one: (not one.is_unloading, one.users.count > 0, one.users.idle_since)
        )
        freed, evicted = 0, []
        for handle in loaded:
            if freed >= excess:
                break
            evicted.append(handle)
            freed += handle.memory_bytes
        await asyncio.gather(*(self.unload(handle) for handle in evicted))
