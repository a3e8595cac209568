"""Everything, in the order in which it is opened; it is closed in the reverse one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from llm_backend.access.opened import Access, opened_access
from llm_backend.app import served_upstreams
from llm_backend.app.database import opened_database
from llm_backend.app.guards import guarded, logged
from llm_backend.app.jobs import job_kinds
from llm_backend.app.models import ChoosePersonality, opened_models
from llm_backend.app.operations import contracted
from llm_backend.app.search import Search, opened_index, search_over
from llm_backend.app.served_models import check_named_models, served_models
from llm_backend.app.stores import Stores, opened_stores, swept
from llm_backend.app.telling import observing, opened_tracing
from llm_backend.app.upstreams import opened_upstreams
from llm_backend.backends.media.web import PICTURE_WORDS
from llm_backend.backends.registry import Registry
from llm_backend.backends.token_files import TokenFiles
from llm_backend.backends.web import WebFiles
from llm_backend.contract import Document, load_document
from llm_backend.contract.validation import Validators
from llm_backend.controllers.recent_errors import RecentErrors
from llm_backend.controllers.responses.file_pictures import FilePictures
from llm_backend.controllers.services import Services
from llm_backend.controllers.status import StatusBoard
from llm_backend.controllers.unfamiliar import Unfamiliar
from llm_backend.settings import Settings, SettingsSource
from llm_backend.store import Database
from llm_backend.telemetry import Metrics

if TYPE_CHECKING:  # its HTTP client is imported only where there is an upstream
    from llm_backend.backends.upstreams.pool import Upstreams

__all__ = ["answering"]

WARMED = (
    "createChatCompletion",
    "createCompletion",
    "createEmbedding",
)  # others at first use: 10 MB


@asynccontextmanager
async def answering(
    settings: Settings,
    shared: Path | None,
    source: SettingsSource | None,
    *,
    leaving: asyncio.Event,
    stopping: asyncio.Event,
    cut_off: asyncio.Event,
) -> AsyncIterator[ASGIApp]:
    """The application over open collaborators."""
    served = served_models(settings)
    check_named_models(settings, served)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    document, metrics = load_document(), Metrics(shared)
    validators = Validators(document)
    async with AsyncExitStack() as stack:
        opened = stack.enter_async_context
        database = await opened(opened_database(settings, metrics))
        configs = served_upstreams.upstream_configs(settings)
        names = {name: model.card.id for model in served for name in model.names}
        routes = served_upstreams.routes(settings, names, configs)
        targets_of = served_upstreams.targets_of(names, routes)
        access = await opened(opened_access(settings, database, targets_of))
        upstream = await opened(
            opened_upstreams(settings, configs, document, metrics, shared, cut_off)
        )
        tracing = await opened(opened_tracing(settings))
        registry = Registry([], {}, upstream, routes)
        observe = observing(metrics, tracing, logs=settings.logs_statistics)
        choose_personality = await opened(
            opened_models(settings, served, shared, source, registry, observe, cut_off)
        )
        vectors = await opened(opened_index(settings))
        stores = await opened(opened_stores(settings, database, metrics))
        await opened(swept(settings, database, stores, access))
        services = _services(
            settings=settings,
            leaving=leaving,
            stopping=stopping,
            document=document,
            validators=validators,
            metrics=metrics,
            database=database,
            access=access,
            upstream=upstream,
            registry=registry,
            choose_personality=choose_personality,
            stores=stores,
            search=search_over(settings, stores, vectors, registry, upstream),
        )
        warming = asyncio.create_task(asyncio.to_thread(validators.warm, WARMED))
        stack.callback(warming.cancel)
        app = contracted(document, validators, services)
        await opened(stores.jobs.running(job_kinds(services, logged(app, services))))
        yield guarded(app, services, tracing)


def _file_pictures(settings: Settings, stores: Stores) -> FilePictures:
    web = WebFiles(
        settings.image_hosts,
        words=PICTURE_WORDS,
        limit_bytes=settings.image_limit_bytes,
        timeout_s=settings.image_timeout_s,
    )
    return FilePictures(stores.files, web, limit_bytes=settings.image_limit_bytes)


def _services(
    *,
    settings: Settings,
    leaving: asyncio.Event,
    stopping: asyncio.Event,
    document: Document,
    validators: Validators,
    metrics: Metrics,
    database: Database,
    access: Access,
    upstream: "Upstreams | None",
    registry: Registry,
    choose_personality: ChoosePersonality,
    stores: Stores,
    search: Search,
) -> Services:
    has_upstream = upstream is not None
    return Services(
        settings=settings,
        leaving=leaving,
        registry=registry,
        choose_personality=choose_personality,
        database=database,
        memory=stores.memory,
        files=stores.files,
        extractor=search.extractor,
        file_texts=search.file_texts,
        file_pictures=_file_pictures(settings, stores),
        library=search.library,
        responses=stores.responses,
        uploads=stores.uploads,
        server_tools=search.server_tools,
        jobs=stores.jobs,
        batches=stores.batches,
        token_files=TokenFiles(settings.tiktoken_dir),
        background=stores.background,
        metrics=metrics,
        status=StatusBoard(lambda: registry.local, stopping, has_upstream=has_upstream),
        recent_errors=RecentErrors(),
        access=access,
        document=document.text,
        operations=document.operations,
        unfamiliar=Unfamiliar(validators, metrics, strict=settings.strict),
        upstream=upstream,
    )
