"""The composition root: settings in, ASGI application out. Builds and wires every object."""

import asyncio
import functools
import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend import __version__, served_upstreams
from llm_backend.access import metered
from llm_backend.access.idempotency import Idempotency
from llm_backend.access.limits import LIMIT_HEADERS
from llm_backend.access.opened import opened_access
from llm_backend.backends.base import Usage
from llm_backend.backends.engine_room import EngineRoom, Patience
from llm_backend.backends.local import Observe
from llm_backend.backends.registry import Registry
from llm_backend.backends.upstreams.config import UpstreamConfig
from llm_backend.config_watch import watch_config
from llm_backend.contract import ContractMissing, Document, Operation, load_document
from llm_backend.contract.answers import AnswerChecks
from llm_backend.contract.body import Limits
from llm_backend.contract.connexion_app import build_app
from llm_backend.contract.request import Handler
from llm_backend.contract.validation import Validators
from llm_backend.controllers.batches import batch_jobs
from llm_backend.controllers.memory import ChatMemory
from llm_backend.controllers.recent_errors import RecentErrors
from llm_backend.controllers.responses.background_worker import ResponseWorker
from llm_backend.controllers.responses.file_texts import FileTexts
from llm_backend.controllers.responses.followed import BackgroundResponses
from llm_backend.controllers.responses.mcp import McpKind
from llm_backend.controllers.responses.memory import ResponseMemory
from llm_backend.controllers.responses.server_tools import ServerTools
from llm_backend.controllers.services import Services
from llm_backend.controllers.sockets import Sockets
from llm_backend.controllers.status import StatusBoard
from llm_backend.controllers.unfamiliar import Unfamiliar
from llm_backend.controllers.vector_stores.embedders import Embedder, Embedders
from llm_backend.controllers.vector_stores.file_search import FileSearchKind
from llm_backend.controllers.vector_stores.ingestion import Ingestion, Removal
from llm_backend.controllers.vector_stores.library import Library
from llm_backend.controllers.vector_stores.upstream_embedder import OPERATION as EMBEDDING
from llm_backend.controllers.vector_stores.upstream_embedder import upstream_embedder
from llm_backend.engine import Engine, EngineConfig
from llm_backend.errors import InvalidRequest
from llm_backend.extraction import ExtractionLimits, Extractor
from llm_backend.guards import AccessLog, CutOff, HostGuard
from llm_backend.local_models import LocalModels
from llm_backend.model_files import machine_memory_bytes
from llm_backend.search import EmbeddedIndex, VectorIndex
from llm_backend.served_models import ServedModel, check_named_models, served_models
from llm_backend.settings import Settings, SettingsError, SettingsSource, load_settings
from llm_backend.store import (
    Background,
    Batches,
    Blobs,
    Bucket,
    Chats,
    Conversations,
    Database,
    Files,
    JobKind,
    Jobs,
    Responses,
    Retention,
    RetentionLimits,
    StoreError,
    StoreUnavailable,
    Uploads,
    VectorStores,
    migrate,
    sweep_forever,
)
from llm_backend.store.administration import Administration
from llm_backend.store.vector_stores import DROP, FORGET, INGEST
from llm_backend.telemetry import Metrics, configure_logging
from llm_backend.web import WebPages

if TYPE_CHECKING:  # OpenTelemetry is imported only where an endpoint is set
    from llm_backend.backends.upstreams.pool import Upstreams
    from llm_backend.tracing import Tracing

__all__ = [
    "App",
    "CannotStart",
    "create_app",
    "migrate_database",
    "opened_administration",
    "opened_engines",
]

log = logging.getLogger(__name__)

DATABASE_RETRY_S = 2.0
RESPONSE_ATTEMPTS = 3  # of servers that ended each time: it may be what ends them
WARMED = (
    "createChatCompletion",
    "createCompletion",
    "createEmbedding",
)  # others at first use: 10 MB


class CannotStart(Exception):
    """The application cannot be opened; the message is one sentence that says what to do."""


def create_app() -> "App":
    """For ASGI servers of your own: `uvicorn --factory llm_backend.app:create_app`."""
    settings = load_settings()
    if settings.processes > 1:
        raise SettingsError("`processes` is for `llm-backend serve`; unset it for other servers.")
    return App(settings)


class App:
    """The ASGI application. Answers while it is open: by `opened`, or by a server's lifespan.

    `shared` is the folder where another process has opened engines, for one of several processes.
    The config file of `source` is watched.
    """

    def __init__(
        self,
        settings: Settings,
        shared: Path | None = None,
        source: SettingsSource | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._shared = shared
        self._answer: ASGIApp | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """The server begins to stop: what would go on without an end is ended."""
        self._stopping.set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Opens database, engines and upstream, and closes them at the end.

        Raises `CannotStart`, one sentence for the person who must act.
        """
        settings, shared = self._settings, self._shared
        configure_logging(
            settings.log_level, settings.log_format, tells_process=settings.processes > 1
        )
        async with AsyncExitStack() as stack:
            with _start_translated():
                answering = _answering(settings, shared, self._source, self._stopping)
                self._answer = await stack.enter_async_context(answering)
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._answer is not None, "the application has not been opened"
        await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()  # lifespan.startup
            try:
                await stack.enter_async_context(self.opened())
            except CannotStart as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def opened_engines(settings: Settings, shared: Path) -> AsyncIterator[None]:
    """What several API processes need: engines with their doors in the folder `shared`, and a
    database with this version's tables. Raises `CannotStart`.
    """
    async with AsyncExitStack() as stack:
        with _start_translated():
            await _migrate_for_others(settings)
            for number, model in enumerate(served_models(settings)):
                config = replace(model.engine, door=_door(shared, number))
                await stack.enter_async_context(Engine(config))
        yield


async def _migrate_for_others(settings: Settings) -> None:
    try:
        await migrate_database(settings)
    except StoreUnavailable as error:
        if not settings.has_database_server:
            raise
        log.warning("database_unavailable", extra={"reason": str(error)})  # they try again


@contextmanager
def _start_translated() -> Iterator[None]:
    try:
        yield
    except (SettingsError, StoreError, ContractMissing, OSError) as error:
        raise CannotStart(_sentence(error)) from error


async def migrate_database(settings: Settings) -> None:
    """Brings the database's tables to this version."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with Database.open(settings.database) as database:
        await migrate(database)


@asynccontextmanager
async def opened_administration(settings: Settings) -> AsyncIterator[Administration]:
    """What is administered, for the shell: over a database with this version's tables."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with Database.open(settings.database) as database:
        await migrate(database)
        yield Administration(database)


@asynccontextmanager
async def _answering(
    settings: Settings,
    shared: Path | None,
    source: SettingsSource | None,
    stopping: asyncio.Event,
) -> AsyncIterator[ASGIApp]:
    """The application over open collaborators; they are closed in the reverse order."""
    served = served_models(settings)
    check_named_models(settings, served)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    document = load_document()
    validators = Validators(document)
    async with AsyncExitStack() as stack:
        metrics = Metrics(shared)
        database = await stack.enter_async_context(
            Database.open(settings.database, metrics.write_seconds.observe)
        )
        await _migrate(database, settings, stack)
        configs = served_upstreams.upstream_configs(settings)
        local_names = {name: model.card.id for model in served for name in model.names}
        routes = served_upstreams.routes(settings, local_names, configs)
        targets_of = served_upstreams.targets_of(local_names, routes)
        access = await stack.enter_async_context(opened_access(settings, database, targets_of))
        upstream = await _upstreams(settings, configs, document, stack)
        tracing = await _tracing(settings, stack)
        count = functools.partial(_count, metrics, tracing)
        registry = Registry([], {}, upstream, routes)
        models = await _local_models(settings, served, shared, registry, count, stack)
        _watch_config(source, settings, models, stack)
        memory = ChatMemory(Chats(database), settings.store_chats)
        stack.push_async_callback(memory.settle)
        extractor = _extractor(settings)
        jobs = Jobs(database, lease_s=settings.job_lease_s)
        batches = Batches(database, jobs)
        files, uploads = _files(settings, database)
        stack.push_async_callback(files.blobs.settle)
        library = _library(settings, database, jobs, registry, upstream, stack)
        expiries = (
            access.expire,
            files.expire,
            uploads.expire,
            batches.expire,
            library.stores.expire,
        )
        _sweep(stack, *expiries, _retention(settings, database).sweep, files.blobs.sweep)
        responses = ResponseMemory(Responses(database), Conversations(database))
        stack.push_async_callback(responses.settle)
        services = Services(
            settings=settings,
            registry=registry,
            database=database,
            memory=memory,
            files=files,
            extractor=extractor,
            file_texts=FileTexts(files, extractor),
            library=library,
            responses=responses,
            uploads=uploads,
            server_tools=_server_tools(settings, library),
            jobs=jobs,
            batches=batches,
            background=BackgroundResponses(
                Background(database, jobs, limit=settings.background_waiting_limit)
            ),
            metrics=metrics,
            status=StatusBoard(lambda: registry.local, stopping, has_upstream=upstream is not None),
            recent_errors=RecentErrors(),
            access=access,
            document=document.text,
            operations=document.operations,
            unfamiliar=Unfamiliar(validators, metrics, strict=settings.strict),
            upstream=upstream,
        )
        warming = asyncio.create_task(asyncio.to_thread(validators.warm, WARMED))
        stack.callback(warming.cancel)
        contracted = _contracted(document, validators, services)
        kinds = _job_kinds(services, AccessLog(contracted, metrics, services.recent_errors))
        await stack.enter_async_context(jobs.running(kinds))
        yield _guarded(contracted, services, tracing)


def _sweep(stack: AsyncExitStack, *sweeps: Callable[[], Awaitable[None]]) -> None:
    sweeping = asyncio.create_task(sweep_forever(*sweeps))
    stack.callback(sweeping.cancel)


def _retention(settings: Settings, database: Database) -> Retention:
    limits = RetentionLimits(days=settings.retain_days, history_bytes=settings.history_limit_bytes)
    return Retention(database, limits)


def _files(settings: Settings, database: Database) -> tuple[Files, Uploads]:
    if settings.files == "upstream" and not settings.has_upstream:
        raise SettingsError(
            "The setting `files` is `upstream`, and there is none: set a key for it."
        )
    blobs = Blobs(database, Bucket(settings.object_store))
    files = Files(database, blobs, limit_bytes=settings.files_limit_bytes)
    return files, Uploads(database, blobs)


def _library(
    settings: Settings,
    database: Database,
    jobs: Jobs,
    registry: Registry,
    upstream: "Upstreams | None",
    stack: AsyncExitStack,
) -> Library:
    if settings.vector_stores == "upstream" and not settings.has_upstream:
        raise SettingsError(
            "The setting `vector_stores` is `upstream`, and there is none: set a key for it."
        )
    vectors = _vector_index(settings)
    if vectors is not None:
        stack.push_async_callback(vectors.close)
    embedders = Embedders(
        registry,
        preferred=settings.embedding_model,
        elsewhere=lambda name: _upstream_embedder(upstream, name),
    )
    return Library(stores=VectorStores(database, jobs), vectors=vectors, embedders=embedders)


def _upstream_embedder(upstream: "Upstreams | None", model: str) -> Embedder | None:
    if upstream is None or not upstream.serves(model, EMBEDDING):
        return None
    return upstream_embedder(upstream, model)


def _vector_index(settings: Settings) -> VectorIndex | None:
    """None where several processes would need a folder that belongs to one."""
    if settings.qdrant_url is not None:
        if find_spec("qdrant_client") is None:
            raise SettingsError("`qdrant_url` needs the package qdrant-client; install it.")
        server = importlib.import_module("llm_backend.search.server")
        key = settings.qdrant_api_key
        index: VectorIndex = server.ServerIndex.at(
            settings.qdrant_url,
            api_key=key and key.get_secret_value(),
            prefix=settings.qdrant_prefix,
        )
        return index
    return EmbeddedIndex(settings.data_dir / "vectors") if settings.processes == 1 else None


def _job_kinds(services: Services, app: ASGIApp) -> Sequence[JobKind]:
    """What is done besides requests, and by whom; `app` answers the lines of batches."""
    kinds = [*batch_jobs(services, app), *_library_kinds(services)]
    if not services.registry.local:
        return kinds
    responses = JobKind(
        name=Background.JOB,
        worker=ResponseWorker(services),
        at_once=services.settings.background_limit,
        attempts=RESPONSE_ATTEMPTS,
    )
    return [*kinds, responses]


def _library_kinds(services: Services) -> Sequence[JobKind]:
    if services.library.vectors is None:
        return ()
    ingestion = Ingestion(services.library, services.files, services.extractor)
    removal = Removal(services.library)
    return (
        JobKind(name=INGEST, worker=ingestion, at_once=2),
        JobKind(name=FORGET, worker=removal, at_once=1),
        JobKind(name=DROP, worker=removal, at_once=1),
    )


def _extractor(settings: Settings) -> Extractor:
    return Extractor(
        ExtractionLimits(
            timeout_s=settings.extraction_timeout_s,
            memory_bytes=settings.extraction_memory_bytes,
            text_bytes=settings.text_limit_bytes,
        )
    )


def _server_tools(settings: Settings, library: Library) -> ServerTools:
    """The tools that are run here while a response is answered."""
    mcp = McpKind(settings.mcp_servers, timeout_s=settings.mcp_timeout_s)
    searches_first = settings.file_search == "always"
    file_search = FileSearchKind(
        library, limit=settings.passages_limit, searches_first=searches_first
    )
    return ServerTools([mcp, file_search])


async def _local_models(
    settings: Settings,
    served: Sequence[ServedModel],
    shared: Path | None,
    registry: Registry,
    count: Observe,
    stack: AsyncExitStack,
) -> LocalModels:
    """The models that the settings ask for, in the registry; those that fit are being loaded."""
    budget_bytes = settings.memory_budget or machine_memory_bytes()
    room = EngineRoom(budget_bytes) if shared is None else EngineRoom(is_fixed=True)
    await stack.enter_async_context(room)
    patience = Patience(waiting_limit=settings.queue_limit, deadline_s=settings.load_deadline_s)
    models = LocalModels(registry, room, functools.partial(_engine, shared), count, patience)
    try:
        await models.serve(served)
    except InvalidRequest as error:
        raise SettingsError(str(error)) from error
    return models


def _watch_config(
    source: SettingsSource | None, settings: Settings, models: LocalModels, stack: AsyncExitStack
) -> None:
    if source is None or source.file is None:
        return
    watching = asyncio.create_task(watch_config(source, settings, models))
    stack.callback(watching.cancel)


def _count(metrics: Metrics, tracing: "Tracing | None", model: str, usage: Usage) -> None:
    if tracing is not None:
        tracing.answered(model, usage)
    metered(
        input_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )
    metrics.answered(
        model,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        queue_s=usage.queue_s,
        first_token_s=usage.queue_s + usage.prompt_s if usage.prompt_s else 0.0,
        tokens_per_second=usage.tokens_per_second,
    )


async def _migrate(database: Database, settings: Settings, stack: AsyncExitStack) -> None:
    """Brings the tables up to date: now, or once a database server that is down has come up."""
    try:
        await migrate(database)
    except StoreUnavailable as error:
        if not settings.has_database_server:
            raise
        log.warning("database_unavailable", extra={"reason": str(error)})
        waiting = asyncio.create_task(_migrate_later(database))
        stack.callback(waiting.cancel)


async def _migrate_later(database: Database) -> None:
    while True:
        await asyncio.sleep(DATABASE_RETRY_S)
        try:
            await migrate(database)
        except StoreUnavailable:
            continue  # said once, and by readiness as long as it lasts
        except StoreError as error:  # a person must act: at start this would have ended the start
            log.critical("database_not_migrated", extra={"reason": str(error)})
            return
        log.info("database_available")
        return


def _contracted(document: Document, validators: Validators, services: Services) -> ASGIApp:
    """Every operation of the document, answered by its controller."""
    settings = services.settings
    return build_app(
        document,
        validators,
        services,
        handler_of=_handler_of,
        authenticate=services.access.caller,
        gate=Idempotency(services.access.gate),
        limits=Limits(
            json_bytes=settings.body_limit_bytes,
            upload_bytes=settings.upload_limit_bytes,
            json_depth=settings.json_depth_limit,
        ),
        check_relayed=True,
        answers=AnswerChecks(settings.response_validation),
        logs_bodies=settings.log_prompts,
    )


def _handler_of(operation: Operation) -> Handler:
    """The controller's function named after the operation; what is not local is the relay's."""
    module = f"llm_backend.controllers.{operation.controller or 'routing'}"
    name = operation.function if operation.controller else "relay_operation"
    handler: Handler = getattr(importlib.import_module(module), name)
    return handler


def _guarded(app: ASGIApp, services: Services, tracing: "Tracing | None") -> ASGIApp:
    """The application behind its guards, the outermost last."""
    settings = services.settings
    keyring = services.access.keyring
    app = Sockets(
        app,
        services,
        keyring.caller,
        asked=AccessLog(app, services.metrics, services.recent_errors),
        origins=settings.cors_origins,
    )
    if settings.web:
        app = WebPages(app)
    if settings.hosts:
        app = HostGuard(app, settings.hosts)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after", *LIMIT_HEADERS],
        )
    app = AccessLog(CutOff(app), services.metrics, services.recent_errors)
    if tracing is None:
        return app
    from llm_backend.tracing import Traced

    return Traced(app, tracing)


async def _tracing(settings: Settings, stack: AsyncExitStack) -> "Tracing | None":
    if settings.otlp_endpoint is None:
        return None
    try:
        from llm_backend.tracing import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            "The setting `otlp_endpoint` needs OpenTelemetry: pip install 'llm-backend[tracing]'."
        ) from error
    return await stack.enter_async_context(Tracing(settings.otlp_endpoint, __version__))


async def _upstreams(
    settings: Settings,
    configs: Sequence[UpstreamConfig],
    document: Document,
    stack: AsyncExitStack,
) -> Any:  # Any: imported only if used
    operations = served_upstreams.operations(settings, configs, document.operations.values())
    if not configs:
        return None
    from llm_backend.backends.upstreams.pool import Upstreams
    from llm_backend.backends.upstreams.upstream import Upstream

    upstreams = Upstreams([Upstream(config) for config in configs], operations)
    return await stack.enter_async_context(upstreams)


def _engine(shared: Path | None, number: int, config: EngineConfig) -> Engine:
    """An engine of this process's own, or the one that another has opened in `shared`."""
    if shared is None:
        return Engine(config)
    return Engine.of_another(replace(config, door=_door(shared, number)))


def _door(shared: Path, number: int) -> Path:
    return shared / f"{number}.door"


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}."
    return str(error)
