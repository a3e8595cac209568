"""Model handle: one model of the model manager, its engine while loaded, and its users' count."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from llm_backend.engine import Engine, EngineState
from llm_backend.errors import EngineUnavailable, ModelNotFound, Overloaded

__all__ = [
    "LoadQueueLimits",
    "LocalModelHandle",
    "MakeEngine",
    "ModelHandle",
    "ModelManager",
    "ModelState",
]

_RETRY_AFTER_S = 2.0

MakeEngine = Callable[[Path | None], Engine]
"""Creates an engine that serves other processes at this socket path; None: at none."""


class ModelState(StrEnum):
    """Load state of a model, and its effect on a new request."""

    UNLOADED = "unloaded"  # a request loads the model
    LOADING = "loading"  # a request waits; also while the engine is restarted after a crash
    LOADED = "loaded"
    UNLOADING = "unloading"  # running requests finish; a new one waits and loads the model again
    FAILED = "failed"  # a request gets the error of the failed load


@dataclass(frozen=True, kw_only=True)
class LoadQueueLimits:
    """Limits of requests that wait for a model to be loaded: their number, and seconds each."""

    waiting_limit: int = 256
    deadline_s: float = 120


class ModelHandle(Protocol):
    """One model of a model manager, in this process or in another one."""

    @property
    def state(self) -> ModelState:
        """Load state of the model."""
        ...

    @property
    def engine(self) -> Engine | None:
        """The model's engine while it is loaded; None otherwise."""
        ...

    def used(self) -> AbstractAsyncContextManager[Engine]:
        """Yields the engine and keeps it loaded within the block; loads the model if needed."""
        ...

    async def load(self) -> None:
        """Loads the model and waits for it; a failed load is tried again."""
        ...

    async def unload(self) -> None:
        """Unloads the model after its running requests have finished."""
        ...

    async def start(self) -> bool:
        """Begins to load the model if it fits beside the loaded ones. Raises `InvalidRequest` for
        a model larger than the budget."""
        ...

    def dismiss(self) -> None:
        """Removes the model in the background, after its running requests have finished."""
        ...


class ModelManager(Protocol):
    """Creates the handles of models; loads and unloads their engines."""

    def handle(
        self,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> ModelHandle:
        """Creates and registers a model handle; arguments as of `LocalModelHandle`."""
        ...


class _HandleOwner(Protocol):
    """Interface of the model manager that a `LocalModelHandle` calls."""

    async def start(self, handle: "LocalModelHandle") -> bool: ...
    async def load(self, handle: "LocalModelHandle") -> None: ...
    async def unload(self, handle: "LocalModelHandle") -> None: ...
    async def remove(self, handle: "LocalModelHandle") -> None: ...
    def unload_behind(self, handle: "LocalModelHandle") -> None: ...
    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...
    def changed(self) -> None: ...


class LocalModelHandle:
    """Handle of a model in this process: its engine while loaded, and a count of its users.

    `make` creates an engine, and `needs` estimates its memory in bytes. After `idle_unload_s`
    without a user the engine is unloaded (None: never).
    """

    def __init__(
        self,
        room: _HandleOwner,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: LoadQueueLimits | None = None,
        idle_unload_s: float | None = None,
    ) -> None:
        self.name = name
        self.make = make
        self.needs = needs
        self.idle_unload_s = idle_unload_s
        self.engine: Engine | None = None
        self.held_bytes = 0
        self.users = 0
        self.used_at = 0.0
        self.is_leaving = False
        self.is_removed = False
        self.gone = asyncio.Event()
        self._room = room
        self._patience = patience or LoadQueueLimits()
        self._waiting = 0
        self._loading: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def state(self) -> ModelState:
        """Load state of the model."""
        if self.engine is None:
            return ModelState.LOADING if self._loading else ModelState.UNLOADED
        if self.is_leaving:
            return ModelState.UNLOADING
        if self.engine.state is EngineState.READY:
            return ModelState.LOADED
        return ModelState.FAILED if self._has_failed else ModelState.LOADING

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Engine]:
        """Yields the engine and keeps it loaded within the block; loads the model if needed.

        Raises `ApiError` if the model does not fit or is not loaded in time, and the engine's own
        error if it cannot be started.
        """
        engine, is_going = self.engine, self.is_leaving or self.is_removed
        if engine is None or is_going or engine.state is not EngineState.READY:
            engine = await self._awaited()
        else:
            self.enter()
        try:
            yield engine
        finally:
            self.leave()

    async def load(self) -> None:
        """Loads the model and waits for it; a failed load is tried again."""
        if self.engine is not None and self._has_failed:
            await self._room.unload(self)
        async with self.used():
            return

    async def unload(self) -> None:
        """Unloads the model after its running requests have finished."""
        await self._room.unload(self)

    async def start(self) -> bool:
        """Begins to load the model if it fits beside the loaded ones; does not wait for it. Raises
        `InvalidRequest` for a model larger than the budget."""
        return await self._room.start(self)

    def dismiss(self) -> None:
        """Removes the model in the background, after its running requests have finished."""
        self._room.begin(self._room.remove(self))

    def enter(self) -> None:
        """Increments the count of users, and cancels the idle timer."""
        self.users += 1
        self._unused.clear()
        self.stay()

    def leave(self) -> None:
        """Decrements the count of users; the last one starts the idle timer."""
        self.users -= 1
        if not self.users:
            self.rest()

    async def drained(self) -> None:
        """Waits until no request uses the engine or waits for it to be loaded."""
        while self.users:
            await self._unused.wait()

    def rest(self) -> None:
        """Marks the engine idle and starts the timer that unloads it."""
        self.used_at = time.monotonic()
        self._unused.set()
        if self.idle_unload_s is not None:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self.idle_unload_s, self._room.unload_behind, self)

    def stay(self) -> None:
        """Cancels the idle timer."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    @property
    def _has_failed(self) -> bool:
        assert self.engine is not None, "an engine fails"
        return self.engine.state in (EngineState.FAILED, EngineState.CLOSED)

    async def _awaited(self) -> Engine:
        if self._waiting >= self._patience.waiting_limit:
            raise Overloaded(
                f"{self._waiting} requests wait for `{self.name}` to be loaded, as many as may.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience.deadline_s):
                return await self._entered()
        except TimeoutError as error:
            raise EngineUnavailable(
                f"`{self.name}` was not loaded within {self._patience.deadline_s:g} s.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        finally:
            self._waiting -= 1

    async def _entered(self) -> Engine:
        """Returns the engine once it is ready. A waiting request counts as a user already, so that
        a load of another model does not unload this one before the request can use it."""
        while self.is_leaving:
            await self.gone.wait()
        if self.is_removed:
            raise ModelNotFound(self.name)
        self.enter()
        try:
            engine = self.engine or await self._loaded()
            await engine.ready()
        except BaseException:
            self.leave()
            raise
        return engine

    async def _loaded(self) -> Engine:
        """Loads the engine once for all waiting requests; continues even if they are cancelled."""
        if self._loading is None:
            self._loading = self._room.begin(self._room.load(self))
            self._loading.add_done_callback(self._has_loaded)
            self._room.changed()
        await asyncio.shield(self._loading)
        assert self.engine is not None, "it was loaded, and is kept for its users"
        return self.engine

    def _has_loaded(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        self._room.changed()
        if not task.cancelled():
            # Marks the error as retrieved: waiting requests got it, but there may be none left.
            task.exception()
