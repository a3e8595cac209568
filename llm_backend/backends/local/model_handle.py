"""Model handle: one model of a model manager, through which requests use the model's engine."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from llm_backend.backends.local.engine_users import EngineUsers
from llm_backend.engine import EngineClient, EngineState
from llm_backend.errors import EngineUnavailable, ServiceUnavailable

MakeEngine = Callable[[Path | None], EngineClient]
"""Creates an engine. With a socket path it also serves other processes there."""


class ModelState(StrEnum):
    """Load state of a model, and its effect on a new request."""

    UNLOADED = "unloaded"  # a request loads the model
    LOADING = "loading"  # a request waits; also while the engine is restarted after a crash
    LOADED = "loaded"
    UNLOADING = "unloading"  # running requests finish; a new one waits and loads the model again
    FAILED = "failed"  # a request gets the error of the failed load


@dataclass(frozen=True, kw_only=True)
class LoadQueueLimits:
    """Limits of requests that wait for a model to be loaded: their number, and each one's time."""

    waiting_limit: int = 256
    deadline_s: float = 120


class ModelHandle(ABC):
    """One model of a model manager, whose engine this process or another one owns."""

    def __init__(
        self,
        name: str,
        make_engine: MakeEngine,
        limits: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> None:
        self.name = name
        self.idle_unload_s = idle_unload_s
        self.make_engine = make_engine
        self._limits = limits
        self._waiting = 0

    @property
    @abstractmethod
    def engine(self) -> EngineClient | None:
        """The model's engine, also while it starts or has failed; None if the model is unloaded."""

    @property
    @abstractmethod
    def is_loading(self) -> bool:
        """True while the model waits for memory, before its engine exists."""

    @property
    @abstractmethod
    def is_unloading(self) -> bool:
        """True while running requests finish, after which the engine is closed."""

    @property
    def state(self) -> ModelState:
        """Load state of the model."""
        if self.is_unloading:
            return ModelState.UNLOADING
        engine = self.engine
        if engine is None:
            return ModelState.LOADING if self.is_loading else ModelState.UNLOADED
        if engine.state is EngineState.READY:
            return ModelState.LOADED
        return ModelState.FAILED if has_failed(engine) else ModelState.LOADING

    @asynccontextmanager
    async def use(self) -> AsyncIterator[EngineClient]:
        """Yields the engine and keeps it loaded within the block; loads the model if needed.

        Raises `ApiError` if the model does not fit or is not loaded in time, and the engine's own
        error if it cannot be started.
        """
        engine, users = self._enter_ready() or await self._wait_for_load()
        try:
            yield engine
        finally:
            users.leave()

    @abstractmethod
    async def load(self) -> None:
        """Loads the model and waits for it; a failed load is tried again."""

    @abstractmethod
    async def unload(self) -> None:
        """Unloads the model after its running requests have finished."""

    @abstractmethod
    async def start_if_fits(self) -> bool:
        """Begins to load the model if it fits beside the loaded ones; does not wait for it. Raises
        `InvalidRequest` for a model larger than the budget."""

    @abstractmethod
    def dismiss(self) -> None:
        """Removes the model in the background, after its running requests have finished."""

    @abstractmethod
    def _enter_ready(self) -> tuple[EngineClient, EngineUsers] | None:
        """Counts a request on a ready engine; None if the model must be loaded first."""

    @abstractmethod
    async def _enter_loaded(self) -> tuple[EngineClient, EngineUsers]:
        """Loads the model, waits for its engine and counts a request on it."""

    async def _wait_for_load(self) -> tuple[EngineClient, EngineUsers]:
        if self._waiting >= self._limits.waiting_limit:
            raise ServiceUnavailable(
                f"{self._waiting} requests wait for `{self.name}` to be loaded, the maximum."
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                return await self._enter_loaded()
        except TimeoutError as error:
            raise EngineUnavailable(
                f"`{self.name}` was not loaded within {self._limits.deadline_s:g} s."
            ) from error
        finally:
            self._waiting -= 1


class ModelManager(Protocol):
    """Creates the handles of models; loads and unloads their engines."""

    def add_model(
        self,
        name: str,
        make_engine: MakeEngine,
        estimate_bytes: Callable[[], Awaitable[int]],
        *,
        limits: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> ModelHandle:
        """Creates and registers a model handle; arguments as of `LocalModelHandle`."""
        ...


def has_failed(engine: EngineClient) -> bool:
    """True for an engine that could not be started, or was closed."""
    return engine.state in (EngineState.FAILED, EngineState.CLOSED)
