"""The local models, as long as the application is open."""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from llm_backend.app.config_watch import watch_config
from llm_backend.app.engines import engine_of
from llm_backend.app.local_models import LocalModels
from llm_backend.app.served_models import ServedModel
from llm_backend.backends.berth import Patience
from llm_backend.backends.engine_room import EngineRoom
from llm_backend.backends.local import Observe
from llm_backend.backends.registry import Registry
from llm_backend.errors import InvalidRequest
from llm_backend.model_files import machine_memory_bytes
from llm_backend.settings import Settings, SettingsError, SettingsSource

__all__ = ["opened_models", "watched_config"]


@asynccontextmanager
async def opened_models(
    settings: Settings,
    served: Sequence[ServedModel],
    shared: Path | None,
    registry: Registry,
    observe: Observe,
) -> AsyncIterator[LocalModels]:
    """The models that the settings ask for, in the registry; those that fit are being loaded."""
    budget_bytes = settings.memory_budget or machine_memory_bytes()
    patience = Patience(waiting_limit=settings.queue_limit, deadline_s=settings.load_deadline_s)
    async with EngineRoom(budget_bytes) if shared is None else EngineRoom(is_fixed=True) as room:
        models = LocalModels(
            registry, room, functools.partial(engine_of, shared), observe, patience
        )
        try:
            await models.serve(served)
        except InvalidRequest as error:
            raise SettingsError(str(error)) from error
        yield models


@asynccontextmanager
async def watched_config(
    source: SettingsSource | None, settings: Settings, models: LocalModels
) -> AsyncIterator[None]:
    """What changes in the config file, if there is one, is applied to the models."""
    if source is None or source.file is None:
        yield
        return
    watching = asyncio.create_task(watch_config(source, settings, models))
    try:
        yield
    finally:
        watching.cancel()
