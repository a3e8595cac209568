"""One model's place in the engine room: its engine while it is in memory, and who uses that."""

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
"""Makes an engine that lets other processes in at this door; None lets nobody in."""


class ModelState(StrEnum):
    """What becomes of a request for a model."""

    UNLOADED = "unloaded"  # it loads the model
    LOADING = "loading"  # it waits; also while the engine is started again after a death
    LOADED = "loaded"
    UNLOADING = "unloading"  # what was begun is finished; it waits, and loads the model again
    FAILED = "failed"  # it is told that the model cannot be loaded


@dataclass(frozen=True, kw_only=True)
class LoadQueueLimits:
    """How many requests wait for a model to be loaded at most, and for how many seconds."""

    waiting_limit: int = 256
    deadline_s: float = 120


class ModelHandle(Protocol):
    """One model's place in a room, whichever process keeps that."""

    @property
    def state(self) -> ModelState:
        """Where the model is between disk and memory."""
        ...

    @property
    def engine(self) -> Engine | None:
        """Its engine while it is in memory."""
        ...

    def used(self) -> AbstractAsyncContextManager[Engine]:
        """The engine, which stays until the block is left; loads the model if it is not there."""
        ...

    async def load(self) -> None:
        """Have the model in memory; one that could not be loaded is tried again."""
        ...

    async def unload(self) -> None:
        """Have the model's memory free, once all that was begun is finished."""
        ...

    async def start(self) -> bool:
        """Begin to load the model if it fits beside the others. Raises `InvalidRequest` for one
        that never fits."""
        ...

    def dismiss(self) -> None:
        """The model is served no more; what was begun is finished."""
        ...


class ModelManager(Protocol):
    """Where models have their places."""

    def handle(
        self,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> ModelHandle:
        """A place more, as `Berth` describes it."""
        ...


class _HandleOwner(Protocol):
    """What a place needs of the room that it is in."""

    async def start(self, handle: "LocalModelHandle") -> bool: ...
    async def load(self, handle: "LocalModelHandle") -> None: ...
    async def unload(self, handle: "LocalModelHandle") -> None: ...
    async def remove(self, handle: "LocalModelHandle") -> None: ...
    def unload_behind(self, handle: "LocalModelHandle") -> None: ...
    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...
    def changed(self) -> None: ...


class LocalModelHandle:
    """One model's place in the room: its engine while it is in memory, and who uses that.

    `make` makes an engine, and `needs` says how many bytes it will take. After `idle_unload_s`
    without a user it is unloaded; None keeps it.
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
        """Where the model is between disk and memory."""
        if self.engine is None:
            return ModelState.LOADING if self._loading else ModelState.UNLOADED
        if self.is_leaving:
            return ModelState.UNLOADING
        if self.engine.state is EngineState.READY:
            return ModelState.LOADED
        return ModelState.FAILED if self._has_failed else ModelState.LOADING

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Engine]:
        """The engine, which stays until the block is left; loads the model if it is not there.

        Raises `ApiError` where the model does not fit, or is not there in time, and what the
        engine raises where it cannot be started.
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
        """Have the model in memory; one that could not be loaded is tried again."""
        if self.engine is not None and self._has_failed:
            await self._room.unload(self)
        async with self.used():
            return

    async def unload(self) -> None:
        """Have the model's memory free, once all that was begun is finished."""
        await self._room.unload(self)

    async def start(self) -> bool:
        """Begin to load the model if it fits beside the others; does not wait for it. Raises
        `InvalidRequest` for one that never fits."""
        return await self._room.start(self)

    def dismiss(self) -> None:
        """The model is served no more; what was begun is finished."""
        self._room.begin(self._room.remove(self))

    def enter(self) -> None:
        """Somebody more uses it."""
        self.users += 1
        self._unused.clear()
        self.stay()

    def leave(self) -> None:
        """Somebody less."""
        self.users -= 1
        if not self.users:
            self.rest()

    async def drained(self) -> None:
        """Returns when nobody uses the engine, or waits for it to be there."""
        while self.users:
            await self._unused.wait()

    def rest(self) -> None:
        """From now on nobody uses it, until somebody does."""
        self.used_at = time.monotonic()
        self._unused.set()
        if self.idle_unload_s is not None:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self.idle_unload_s, self._room.unload_behind, self)

    def stay(self) -> None:
        """It is not unloaded for its idleness."""
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
        """The engine, once it is ready. Who waits for it is its user already, so that the next one
        who needs the room does not take it before they come in."""
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
        """One loading for all who wait; it goes on when they give up."""
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
            task.exception()  # who waits is told; maybe nobody does any more
