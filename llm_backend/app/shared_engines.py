"""Engines that several API processes share, in the process that owns them and serves no request."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from llm_backend.app.database_startup import migrate_for_others
from llm_backend.app.model_reconciler import ModelReconciler
from llm_backend.app.model_startup import (
    load_queue_limits,
    open_config_watch,
    open_planner,
    serve_first,
)
from llm_backend.app.served_models import ServedModel, build_served_models, check_named_models
from llm_backend.app.startup_errors import translate_startup_errors
from llm_backend.app.upstreams import upstream_configs
from llm_backend.backends.base import Usage
from llm_backend.backends.local.shared_manager import ModelManagerServer
from llm_backend.backends.registry import Registry
from llm_backend.backends.upstream.permits.permit_server import PermitServer
from llm_backend.engine import EngineClient
from llm_backend.engine.messages import Priority
from llm_backend.settings import Settings, SettingsSource, settings_as_json


@asynccontextmanager
async def open_shared_engines(
    settings: Settings,
    shared: Path,
    source: SettingsSource | None = None,
    on_change: Callable[[Settings], None] = lambda _: None,
) -> AsyncIterator[None]:
    """Opens what several API processes share: a model manager with its socket paths in the folder
    `shared`, the permits of upstreams, and a migrated database. Changes in the config file of
    `source` are applied in all processes; `on_change` is called with the new settings.
    Raises `CannotStart`.
    """
    async with AsyncExitStack() as stack:
        with translate_startup_errors():
            await migrate_for_others(settings)
            served = build_served_models(settings)
            check_named_models(settings, served)
            planner = await open_planner(settings)
            manager = await stack.enter_async_context(
                ModelManagerServer(shared, planner.budget_bytes)
            )
            upstreams = upstream_configs(settings)
            await stack.enter_async_context(PermitServer(shared, upstreams))
            models = ModelReconciler(
                Registry([]),
                manager,
                EngineClient,
                _ignore_usage,
                load_queue_limits(settings),
                planner,
            )
            await serve_first(models, served)

        async def serve(changed: Settings, served: Sequence[ServedModel]) -> None:
            try:
                await models.serve(served)
            finally:  # also with one that never fits, which is served as such
                on_change(changed)
                await manager.apply_settings(settings_as_json(changed))

        await stack.enter_async_context(open_config_watch(source, settings, serve))
        yield


def _ignore_usage(_model: str, _operation: str, _priority: Priority, _usage: Usage) -> None:
    """Ignores usage: the process that answers observes it."""
