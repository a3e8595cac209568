"""Opens all services of a server in order, and closes them in the reverse order."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from starlette.types import ASGIApp

from llm_backend.access.authentication.keyring import Keyring
from llm_backend.access.wiring import open_access
from llm_backend.app.api import add_access_log, add_guards, build_operations
from llm_backend.app.database_startup import make_data_folder, open_database
from llm_backend.app.jobs import job_kinds, warn_of_other_servers
from llm_backend.app.model_startup import (
    build_espeak_model,
    build_local_images,
    build_synthesizer,
    build_transcriber,
    open_models,
)
from llm_backend.app.observability import open_tracing, usage_observer
from llm_backend.app.search import build_search, open_index
from llm_backend.app.served_models import build_served_models, check_named_models
from llm_backend.app.stores import Stores, open_stores, open_sweeper
from llm_backend.app.upstreams import (
    model_routes,
    open_image_servers,
    open_upstreams,
    upstream_configs,
)
from llm_backend.backends.images.image_models import ImageModels
from llm_backend.backends.local.media.web import IMAGE_WORDS
from llm_backend.backends.local.token_files import TokenFiles
from llm_backend.backends.registry import Registry
from llm_backend.backends.web_files import WebFiles
from llm_backend.backends.webhook_sender import WebhookSender
from llm_backend.background_tasks import background_task
from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.detached_chats import DetachedChats
from llm_backend.controllers.services.detached_peers import DetachedPeers
from llm_backend.controllers.services.error_buffer import RecentErrors
from llm_backend.controllers.services.input_images import InputImages
from llm_backend.controllers.services.listed_items import ListedItems
from llm_backend.controllers.services.mcp_endpoint import McpEndpoint
from llm_backend.controllers.services.session_limit import SessionLimit
from llm_backend.controllers.services.shared_detached_chats import SharedDetachedChats
from llm_backend.controllers.services.status_board import StatusBoard
from llm_backend.controllers.services.unknown_field_reporter import UnknownFieldReporter
from llm_backend.metrics import Metrics
from llm_backend.offload import trim_memory
from llm_backend.settings import Settings, SettingsSource
from llm_backend.store import DetachedChatLeases
from llm_backend.store.jobs import run_jobs
from llm_backend.temporary_files import TemporaryFiles

# Operations whose validators are compiled at start; the others (10 MB) are at first use.
WARM_OPERATIONS = (
    "createChatCompletion",
    "createCompletion",
    "createEmbedding",
)


@dataclass(frozen=True, kw_only=True)
class OpenServices:
    """The application over all services, and the keyring that authenticates its callers."""

    app: ASGIApp
    keyring: Keyring


@asynccontextmanager
async def open_services(
    settings: Settings,
    shared: Path | None,
    source: SettingsSource | None,
    config_file: Path | None,
    *,
    draining: asyncio.Event,
    stopping: asyncio.Event,
    cut_off: asyncio.Event,
) -> AsyncIterator[OpenServices]:
    """Opens all services and returns the application over them."""
    served = build_served_models(settings)
    check_named_models(settings, served)
    make_data_folder(settings)
    document, metrics = load_document(), Metrics(shared)
    validators = Validators(document)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(open_database(settings, metrics))
        configs = upstream_configs(settings)
        names = {name for model in served for name in model.names}
        routes = model_routes(settings, names, configs)
        # The registry is created below, before the first request.
        access = await enter(
            open_access(
                settings,
                database,
                lambda name: registry.models_of(name),
                config_file=config_file,
            )
        )
        upstreams = await enter(
            open_upstreams(settings, configs, document, metrics, shared, cut_off)
        )
        image_servers = await enter(open_image_servers(settings, upstreams))
        tracing = await enter(open_tracing(settings))
        upstream = upstreams.relayed
        synthesizer = build_synthesizer(settings, metrics)
        espeak_model = build_espeak_model(settings, synthesizer)
        registry = Registry([], {}, upstream, routes, espeak_model, upstreams.image_servers)
        image_models = ImageModels(image_servers, build_local_images(settings, metrics), registry)
        observe = usage_observer(metrics, tracing, logs=settings.logs_statistics)
        choose_personality = await enter(
            open_models(settings, served, shared, source, registry, observe, cut_off)
        )
        vectors = await enter(open_index(settings))
        stores = await enter(open_stores(settings, database, metrics, shared))
        leases = DetachedChatLeases(database)
        await enter(open_sweeper(settings, database, stores, access, leases))
        peers = await enter(_open_detached_chats(settings, shared, leases))
        temporary_files = TemporaryFiles(
            lambda kind: metrics.temporary_file_failures.labels(kind).inc()
        )
        search = build_search(
            settings, stores, vectors, registry, upstream, image_models, temporary_files
        )
        services = Services(
            settings=settings,
            draining=draining,
            registry=registry,
            choose_personality=choose_personality,
            database=database,
            chat_recorder=stores.chat_recorder,
            detached_chats=peers.chats,
            detached_peers=peers,
            chat_search=stores.chat_search,
            files=stores.files,
            extractor=search.extractor,
            temporary_files=temporary_files,
            file_texts=search.file_texts,
            input_images=_input_images(settings, stores),
            vector_stores=search.vector_stores,
            responses=stores.responses,
            listed_items=ListedItems(validators),
            uploads=stores.uploads,
            voices=stores.voices,
            server_tools=search.server_tools,
            jobs=stores.jobs,
            batches=stores.batches,
            webhooks=stores.webhooks,
            webhook_sender=WebhookSender(
                settings.webhook_hosts, timeout_s=settings.webhook_timeout_s
            ),
            token_files=TokenFiles(settings.tiktoken_dir),
            background=stores.background,
            mcp=McpEndpoint(
                urls=settings.mcp_servers,
                timeout_s=settings.mcp_timeout_s,
                list_timeout_s=settings.mcp_list_timeout_s,
                file_limit_bytes=settings.mcp_file_limit_bytes,
                body_bytes=settings.json_text_limit_bytes,
            ),
            metrics=metrics,
            status=StatusBoard(
                lambda: registry.local,
                stopping,
                has_upstream=upstream is not None or image_servers is not None,
                has_room=temporary_files.has_room,
                drawings=image_models.progress,
            ),
            recent_errors=RecentErrors(),
            access=access,
            document=document.text,
            operations=document.operations,
            synthesizer=synthesizer,
            transcriber=build_transcriber(settings, metrics),
            validators=validators,
            session_limit=SessionLimit(
                settings.realtime_sessions_limit, key_limit=settings.realtime_key_sessions_limit
            ),
            unknown_fields=UnknownFieldReporter(validators, metrics, strict=settings.strict),
            upstreams=upstream,
            image_servers=image_servers,
            image_models=image_models,
        )
        warming = asyncio.create_task(asyncio.to_thread(_warm, validators))
        stack.callback(warming.cancel)
        app = build_operations(document, validators, services)
        internal_app = add_access_log(app, services)
        await enter(run_jobs(stores.jobs, job_kinds(services, internal_app)))
        warn_of_other_servers(stores.jobs)
        await enter(services.mcp.serve(internal_app))
        yield OpenServices(app=add_guards(app, services, tracing), keyring=access.keyring)


def _warm(validators: Validators) -> None:
    """Compiles the request validators of the most common operations, and then returns the memory
    that this took to the operating system."""
    validators.warm(WARM_OPERATIONS)
    trim_memory()


@asynccontextmanager
async def _open_detached_chats(
    settings: Settings, shared: Path | None, leases: DetachedChatLeases
) -> AsyncIterator[DetachedPeers]:
    chats = DetachedChats(
        limit=settings.detached_chats_limit,
        bytes_limit=settings.detached_chat_bytes,
    )
    if not settings.has_database_server and shared is None:  # the only process of the database
        yield DetachedPeers(chats, None, os.getpid(), None)
        return
    server = shared.name if shared else token_hex(8)
    others = SharedDetachedChats(leases, chats, server=server)
    try:
        async with (
            background_task(others.renew_forever()),
            DetachedPeers(chats, shared, os.getpid(), others).serve() as peers,
        ):
            yield peers
    finally:
        await others.release_all()


def _input_images(settings: Settings, stores: Stores) -> InputImages:
    web = WebFiles(
        settings.image_hosts,
        messages=IMAGE_WORDS,
        limit_bytes=settings.image_limit_bytes,
        timeout_s=settings.image_timeout_s,
    )
    return InputImages(stores.files, web, limit_bytes=settings.image_limit_bytes)
