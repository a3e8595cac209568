"""Remote model handle: one model whose engine another process owns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm_backend.backends.local.model_handle import MakeEngine, ModelState
from llm_backend.backends.local.shared_manager.manager_messages import LoadModel, UnloadModel
from llm_backend.engine import Engine, EngineState
from llm_backend.errors import EngineUnavailable

if TYPE_CHECKING:
    from llm_backend.backends.local.shared_manager.engine_lease import EngineLeases
    from llm_backend.backends.local.shared_manager.manager_client import ModelManagerClient

__all__ = ["RemoteModelHandle"]

_RETRY_AFTER_S = 2.0


class RemoteModelHandle:
    """Handle of a model of a `ModelManagerClient`."""

    def __init__(
        self,
        manager_client: "ModelManagerClient",
        name: str,
        make: MakeEngine,
        deadline_s: float,
    ) -> None:
        self.name = name
        self.make = make
        self._manager_client = manager_client
        self._deadline_s = deadline_s

    @property
    def engine(self) -> Engine | None:
        """The model's engine while it is loaded and accepts requests; None otherwise."""
        stay = self._manager_client.stay(self.name)
        return None if stay is None else stay.engine

    @property
    def state(self) -> ModelState:
        """Load state of the model."""
        engine = self.engine
        if engine is None:
            if self._manager_client.leaving(self.name):
                return ModelState.UNLOADING
            is_loading = self._manager_client.is_loading(self.name)
            return ModelState.LOADING if is_loading else ModelState.UNLOADED
        if engine.state is EngineState.READY:
            return ModelState.LOADED
        has_failed = engine.state in (EngineState.FAILED, EngineState.CLOSED)
        return ModelState.FAILED if has_failed else ModelState.LOADING

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Engine]:
        """Yields the engine and keeps it loaded within the block; loads the model if needed.
        Raises as the owner's `LocalModelHandle.used`."""
        stay = self._manager_client.stay(self.name)
        if stay is not None and stay.engine.state is EngineState.READY:
            stay.enter()
        else:
            stay = await self._awaited()
        try:
            yield stay.engine
        finally:
            stay.leave()

    async def load(self) -> None:
        """Loads the model and waits for it; a failed load is tried again."""
        await self._manager_client.ask(self.name, lambda ask: LoadModel(ask=ask, model=self.name))

    async def unload(self) -> None:
        """Unloads the model after its running requests have finished."""
        await self._manager_client.ask(self.name, lambda ask: UnloadModel(ask=ask, model=self.name))

    async def start(self) -> bool:
        """Does nothing: the owner starts models."""
        return False

    def dismiss(self) -> None:
        """Does nothing: the owner removes models."""

    async def _awaited(self) -> "EngineLeases":
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._manager_client.used(self.name)
        except TimeoutError as error:
            raise EngineUnavailable(
                f"`{self.name}` was not loaded within {self._deadline_s:g} s.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
