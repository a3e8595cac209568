"""Local model handle: a model whose engine this process owns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from llm_backend.backends.local.engine_users import EngineUsers
from llm_backend.backends.local.model_handle import (
    LoadQueueLimits,
    MakeEngine,
    ModelHandle,
    has_failed,
)
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.engine import EngineClient, EngineState


class _HandleOwner(Protocol):
    """Interface of the model manager that a `LocalModelHandle` calls."""

    tasks: BackgroundTasks

    async def start_if_fits(self, handle: "LocalModelHandle") -> bool: ...
    async def start_evicting_others(self, handle: "LocalModelHandle") -> None: ...
    async def unload(self, handle: "LocalModelHandle") -> None: ...
    async def remove(self, handle: "LocalModelHandle") -> None: ...
    def handle_of_model(self, model: str) -> "LocalModelHandle": ...
    def notify_change(self) -> None: ...


class LocalModelHandle(ModelHandle):
    """Handle of a model in this process: its engine while loaded, and a count of its users.

    `make_engine` creates an engine, and `estimate_bytes` estimates its memory. After
    `idle_unload_s` without a user the engine is unloaded (None: never).
    """

    engine: EngineClient | None = None

    def __init__(
        self,
        manager: _HandleOwner,
        name: str,
        make_engine: MakeEngine,
        estimate_bytes: Callable[[], Awaitable[int]],
        *,
        limits: LoadQueueLimits | None = None,
        idle_unload_s: float | None = None,
    ) -> None:
        super().__init__(name, make_engine, limits or LoadQueueLimits(), idle_unload_s)
        self.estimate_bytes = estimate_bytes
        self.memory_bytes = 0  # estimated, while it is loaded
        self.users = EngineUsers(idle_unload_s, self._unload_idle)
        self.is_removed = False
        self.unload_done: asyncio.Event | None = None  # while it is being unloaded: set at the end
        self._manager = manager
        self._loading: asyncio.Task[None] | None = None

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    @property
    def is_unloading(self) -> bool:
        return self.unload_done is not None

    async def load(self) -> None:
        if self.engine is not None and has_failed(self.engine):
            await self._manager.unload(self)
        async with self.use():
            return

    async def unload(self) -> None:
        await self._manager.unload(self)

    async def start_if_fits(self) -> bool:
        return await self._manager.start_if_fits(self)

    def dismiss(self) -> None:
        self._manager.tasks.start(self._manager.remove(self))

    def _enter_ready(self) -> tuple[EngineClient, EngineUsers] | None:
        engine, is_ending = self.engine, self.is_unloading or self.is_removed
        if engine is None or is_ending or engine.state is not EngineState.READY:
            return None
        self.users.enter()
        return engine, self.users

    async def _enter_loaded(self) -> tuple[EngineClient, EngineUsers]:
        """Returns the engine once it is ready. A waiting request counts as a user already, so that
        a load of another model does not unload this one before the request can use it. Requests of
        a removed handle use its replacement. Raises `ModelNotFound` if there is none."""
        while self.unload_done is not None:
            await self.unload_done.wait()
        if self.is_removed:
            return await self._manager.handle_of_model(self.name)._enter_loaded()
        self.users.enter()
        try:
            engine = self.engine or await self._load_once()
            await engine.ready()
        except BaseException:
            self.users.leave()
            raise
        return engine, self.users

    async def _load_once(self) -> EngineClient:
        """Loads the engine once for all waiting requests; continues even if they are cancelled."""
        if self._loading is None:
            self._loading = self._manager.tasks.start(self._manager.start_evicting_others(self))
            self._loading.add_done_callback(self._end_load)
            self._manager.notify_change()
        await asyncio.shield(self._loading)
        assert self.engine is not None, "it was loaded, and is kept for its users"
        return self.engine

    def _end_load(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        self._manager.notify_change()
        if not task.cancelled():
            # Marks the error as retrieved: waiting requests got it, but there may be none left.
            task.exception()

    def _unload_idle(self) -> None:
        if not self.users.count and self.engine is not None:
            self._manager.tasks.start(self._manager.unload(self))
