"""Background jobs of one process."""

import logging
from collections.abc import Collection, Sequence
from functools import partial

from starlette.types import ASGIApp

from llm_backend.controllers.batches import batch_jobs
from llm_backend.controllers.responses.background.background_worker import ResponseWorker
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.vector_store_services import VectorStoreServices
from llm_backend.controllers.vector_stores.ingestion.ingestion_worker import (
    ATTEMPTS_PER_FILE,
    ATTEMPTS_PER_REMOVAL,
    Ingestion,
    IngestionLimits,
    Removal,
)
from llm_backend.controllers.webhooks import webhook_jobs
from llm_backend.search import IndexFailure, VectorIndex
from llm_backend.store import BackgroundStore, JobKind
from llm_backend.store.jobs import Jobs
from llm_backend.store.vector_stores import INGEST, INGEST_LONG, REMOVE_FILE, REMOVE_STORE

log = logging.getLogger(__name__)

# Short files that are ingested at the same time: more than the extractor has child processes, so
# that plain text, which needs none, does not wait for other files.
SHORT_CONCURRENCY = 8
LONG_CONCURRENCY = 2
# Attempts in all, if servers die: the response may be the cause. A server without the model makes
# none.
RESPONSE_ATTEMPTS = 3
_OTHER_SERVER = (
    "Servers on one SQLite database each count limits for themselves, and only one has the vector "
    "index: give each a data folder, or use PostgreSQL (`database_url`)."
)


def job_kinds(services: Services, app: ASGIApp) -> Sequence[JobKind]:
    """Lists the kinds of jobs that this process can run; `app` answers the lines of batches."""
    registry = services.registry

    async def model_names() -> Collection[str]:
        return registry.local_names()

    responses = JobKind(
        name=BackgroundStore.JOB,
        worker=ResponseWorker(services),
        max_concurrency=services.settings.background_limit,
        attempts=RESPONSE_ATTEMPTS,
        can_begin=lambda: bool(registry.local),  # a reload may add the first model
        affinities=model_names,
    )
    return [
        *batch_jobs(services, app),
        *_vector_store_kinds(services),
        responses,
        webhook_jobs(services),
    ]


def warn_of_other_servers(jobs: Jobs) -> None:
    """Logs a warning for each other server that uses the same SQLite database."""
    for process_id in jobs.other_servers():
        log.warning(
            "database_has_another_server",
            extra={"other_server": process_id, "reason": _OTHER_SERVER},
        )


def _vector_store_kinds(services: Services) -> Sequence[JobKind]:
    vectors = services.vector_stores.vectors
    if vectors is None:
        return ()
    affinities = partial(_index_names, vectors)
    return (
        JobKind(
            name=INGEST,
            worker=_ingestion(services, only_short=True),
            max_concurrency=SHORT_CONCURRENCY,
            attempts=ATTEMPTS_PER_FILE,
            affinities=affinities,
        ),
        JobKind(
            name=INGEST_LONG,
            worker=_ingestion(services, only_short=False),
            max_concurrency=LONG_CONCURRENCY,
            attempts=ATTEMPTS_PER_FILE,
            affinities=affinities,
        ),
        *removal_kinds(services.vector_stores),
    )


def removal_kinds(vector_stores: VectorStoreServices) -> Sequence[JobKind]:
    """Lists the kinds of jobs that remove points from the vector index."""
    worker, affinities = Removal(vector_stores), partial(_index_names, vector_stores.index)
    return [
        JobKind(
            name=name,
            worker=worker,
            max_concurrency=1,
            attempts=ATTEMPTS_PER_REMOVAL,
            affinities=affinities,
        )
        for name in (REMOVE_FILE, REMOVE_STORE)
    ]


def _ingestion(services: Services, *, only_short: bool) -> Ingestion:
    settings = services.settings
    return Ingestion(
        services.vector_stores,
        services.files,
        services.extractor,
        services.access.ledger,
        limits=IngestionLimits(
            timeout_s=settings.ingestion_timeout_s,
            short_characters=settings.ingestion_short_characters,
        ),
        only_short=only_short,
    )


async def index_name(vectors: VectorIndex) -> str | None:
    """Returns the name of the usable vector index; None if another process owns it."""
    try:
        return await vectors.name()
    except IndexFailure as error:
        log.info("vector_index_not_used", extra={"reason": str(error)})
        return None


async def _index_names(vectors: VectorIndex) -> Collection[str] | None:
    name = await index_name(vectors)
    return None if name is None else [name]
