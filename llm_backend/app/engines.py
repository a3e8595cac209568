"""Engines for several API processes, opened by the one that serves nobody."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from llm_backend.app.database import migrate_for_others
from llm_backend.app.served_models import served_models
from llm_backend.app.starting import start_translated
from llm_backend.engine import Engine, EngineConfig
from llm_backend.settings import Settings

__all__ = ["engine_of", "opened_engines"]


@asynccontextmanager
async def opened_engines(settings: Settings, shared: Path) -> AsyncIterator[None]:
    """What several API processes need: engines with their doors in the folder `shared`, and a
    database with this version's tables. Raises `CannotStart`.
    """
    async with AsyncExitStack() as stack:
        with start_translated():
            await migrate_for_others(settings)
            for number, model in enumerate(served_models(settings)):
                config = replace(model.engine, door=_door(shared, number))
                await stack.enter_async_context(Engine(config))
        yield


def engine_of(shared: Path | None, number: int, config: EngineConfig) -> Engine:
    """An engine of this process's own, or the one that another has opened in `shared`."""
    if shared is None:
        return Engine(config)
    return Engine.of_another(replace(config, door=_door(shared, number)))


def _door(shared: Path, number: int) -> Path:
    return shared / f"{number}.door"
