"""Stores of chats, responses, files, batches and background jobs, and their periodic sweep."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_backend.access.wiring import Access
from llm_backend.background_tasks import background_task
from llm_backend.controllers.services.background_responses import BackgroundResponses
from llm_backend.controllers.services.chat_recorder import ChatRecorder
from llm_backend.controllers.services.stored_responses import StoredResponses
from llm_backend.controllers.write_behind.lost_writes import LostWrites
from llm_backend.metrics import Metrics
from llm_backend.settings import Settings, SettingsError
from llm_backend.store import (
    BackgroundStore,
    BatchStore,
    Blobs,
    Bucket,
    ChatSearch,
    ChatStore,
    ConversationStore,
    Database,
    DeliveryLimit,
    DetachedChatLeases,
    FileStore,
    Jobs,
    ResponseStore,
    Retention,
    RetentionLimits,
    UploadStore,
    VectorStores,
    VoiceStore,
    WebhookStore,
    sweep_forever,
)


@dataclass(frozen=True, kw_only=True)
class Stores:
    """All stores of one database and its object store."""

    chat_recorder: ChatRecorder
    chat_search: ChatSearch
    responses: StoredResponses
    files: FileStore
    uploads: UploadStore
    jobs: Jobs
    batches: BatchStore
    webhooks: WebhookStore
    background: BackgroundResponses
    vector_stores: VectorStores
    voices: VoiceStore


@asynccontextmanager
async def open_stores(
    settings: Settings, database: Database, metrics: Metrics, shared: Path | None
) -> AsyncIterator[Stores]:
    """Opens the stores over an open database; waits for pending writes at the end. `shared` is the
    folder that several API processes of a server share."""
    stores = _stores(settings, database, metrics, shared)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stores.chat_recorder.wait_idle)
        stack.push_async_callback(stores.files.blobs.wait_idle)
        stack.push_async_callback(stores.responses.wait_idle)
        yield stores


@asynccontextmanager
async def open_sweeper(
    settings: Settings,
    database: Database,
    stores: Stores,
    access: Access,
    detached_chats: DetachedChatLeases,
) -> AsyncIterator[None]:
    """Sweeps periodically: deletes rows that are expired, too old or beyond a limit, and indexes
    the words of new chats."""
    limits = RetentionLimits(
        retain_days=settings.retain_days, history_limit_bytes=settings.history_limit_bytes
    )
    sweeps = (
        access.expire,
        stores.files.expire,
        stores.uploads.expire,
        stores.batches.expire,
        stores.webhooks.expire,
        stores.vector_stores.expire,
        Retention(database, limits).sweep,
        stores.files.blobs.sweep,
        stores.chat_search.sweep,
        detached_chats.expire,
    )
    async with background_task(sweep_forever(*sweeps)):
        yield


def _stores(
    settings: Settings, database: Database, metrics: Metrics, shared: Path | None
) -> Stores:
    server = None if shared is None else f"{os.getppid()}-{shared.name}"
    jobs = Jobs(database, lease_s=settings.job_lease_s, server=server)
    files, uploads = _files(settings, database)
    deliveries = DeliveryLimit(
        waiting=settings.webhook_waiting_limit,
        on_dropped=metrics.webhook_deliveries.labels("dropped").inc,
    )
    background = BackgroundStore(
        database, jobs, limit=settings.background_waiting_limit, deliveries=deliveries
    )
    lost = metrics.not_stored.labels
    lost_chats = LostWrites("chat_not_stored", "chat_id", lost("chat").inc)
    lost_responses = LostWrites("response_not_stored", "response_id", lost("response").inc)
    return Stores(
        chat_recorder=ChatRecorder(ChatStore(database), settings.store_chats, lost_chats),
        chat_search=ChatSearch(database, limit_characters=settings.chat_search_characters),
        responses=StoredResponses(
            ResponseStore(database), ConversationStore(database), lost_responses
        ),
        files=files,
        uploads=uploads,
        jobs=jobs,
        batches=BatchStore(database, jobs, deliveries=deliveries),
        webhooks=WebhookStore(database, jobs, limit=settings.webhook_endpoints_limit),
        background=BackgroundResponses(background),
        vector_stores=VectorStores(database, jobs),
        voices=VoiceStore(
            database,
            files.blobs,
            limit=settings.voices_limit,
            limit_bytes=settings.files_limit_bytes,
        ),
    )


def _files(settings: Settings, database: Database) -> tuple[FileStore, UploadStore]:
    if settings.files == "upstream" and not settings.has_relay_upstream:
        raise SettingsError(
            "The setting `files` is `upstream`, but no upstream is configured: set its key."
        )
    blobs = Blobs(database, Bucket(settings.object_store))
    files = FileStore(
        database,
        blobs,
        limit_bytes=settings.files_limit_bytes,
        job_lease_s=settings.job_lease_s,
    )
    return files, UploadStore(database, blobs, limit_bytes=settings.files_limit_bytes)
