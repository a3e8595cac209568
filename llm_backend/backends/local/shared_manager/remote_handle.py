"""Remote model handle: a model whose engine another process owns."""

from collections.abc import Callable
from typing import Protocol

from llm_backend.backends.local.engine_users import EngineUsers
from llm_backend.backends.local.model_handle import LoadQueueLimits, MakeEngine, ModelHandle
from llm_backend.backends.local.shared_manager.engine_lease import EngineLease
from llm_backend.backends.local.shared_manager.manager_messages import (
    LoadModelRequest,
    ManagerRequest,
    UnloadModel,
)
from llm_backend.engine import EngineClient, EngineState


class _LeaseOwner(Protocol):
    """Interface of the manager client that a `RemoteModelHandle` calls."""

    def find_lease(self, model: str) -> EngineLease | None: ...
    def is_loading(self, model: str) -> bool: ...
    def is_unloading(self, model: str) -> bool: ...
    async def enter_loaded(self, model: str) -> EngineLease: ...
    async def request(self, message: Callable[[int], ManagerRequest]) -> None: ...


class RemoteModelHandle(ModelHandle):
    """Handle by which a `ModelManagerClient` uses a model that another process loads."""

    def __init__(
        self,
        owner: _LeaseOwner,
        name: str,
        make_engine: MakeEngine,
        limits: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> None:
        super().__init__(name, make_engine, limits, idle_unload_s)
        self._owner = owner

    @property
    def engine(self) -> EngineClient | None:
        """The model's engine while it is loaded and accepts requests; None otherwise."""
        lease = self._owner.find_lease(self.name)
        return None if lease is None else lease.engine

    @property
    def is_loading(self) -> bool:
        return self._owner.is_loading(self.name)

    @property
    def is_unloading(self) -> bool:
        """True while the model's only engine is being unloaded; False if there is a newer one."""
        return self.engine is None and self._owner.is_unloading(self.name)

    async def load(self) -> None:
        await self._owner.request(lambda number: LoadModelRequest(number=number, model=self.name))

    async def unload(self) -> None:
        await self._owner.request(lambda number: UnloadModel(number=number, model=self.name))

    async def start_if_fits(self) -> bool:
        """Does nothing: the owner starts models."""
        return False

    def dismiss(self) -> None:
        """Does nothing: the owner removes models."""

    def _enter_ready(self) -> tuple[EngineClient, EngineUsers] | None:
        lease = self._owner.find_lease(self.name)
        if lease is None or lease.engine.state is not EngineState.READY:
            return None
        lease.enter()
        return lease.engine, lease

    async def _enter_loaded(self) -> tuple[EngineClient, EngineUsers]:
        lease = await self._owner.enter_loaded(self.name)
        return lease.engine, lease
