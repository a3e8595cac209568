"""The database with this version's tables, now or as soon as it can be reached."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from llm_backend.settings import Settings
from llm_backend.store import Database, StoreError, StoreUnavailable, migrate, recount_files
from llm_backend.store.administration import Administration
from llm_backend.telemetry import Metrics

__all__ = [
    "migrate_database",
    "migrate_for_others",
    "migrate_later",
    "open_administration",
    "open_database",
    "recount_file_bytes",
]

log = logging.getLogger(__name__)

DATABASE_RETRY_S = 2.0


@asynccontextmanager
async def open_database(settings: Settings, metrics: Metrics) -> AsyncIterator[Database]:
    """Its tables are brought up to date, or will be once a server that is down has come up."""
    async with AsyncExitStack() as stack:
        opening = Database.open(
            settings.database,
            metrics.write_seconds.observe,
            metrics.writes_waiting.inc,
            metrics.write_failures.inc,
        )
        database = await stack.enter_async_context(opening)
        try:
            await migrate(database)
        except StoreUnavailable as error:
            if not settings.has_database_server:
                raise
            log.warning("database_unavailable", extra={"reason": str(error)})
            waiting = asyncio.create_task(migrate_later(database))
            stack.callback(waiting.cancel)
        yield database


async def migrate_later(database: Database) -> None:
    """Tries again until the tables are this version's, or a person must act."""
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


async def migrate_for_others(settings: Settings) -> None:
    """What can be done of it before other processes open the database."""
    try:
        await migrate_database(settings)
    except StoreUnavailable as error:
        if not settings.has_database_server:
            raise
        log.warning("database_unavailable", extra={"reason": str(error)})  # they try again


async def migrate_database(settings: Settings) -> None:
    """Brings the database's tables to this version."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with Database.open(settings.database) as database:
        await migrate(database)


async def recount_file_bytes(settings: Settings) -> tuple[int, int]:
    """How many bytes files were counted to have, and how many they have."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with Database.open(settings.database) as database:
        await migrate(database)
        return await recount_files(database)


@asynccontextmanager
async def open_administration(settings: Settings) -> AsyncIterator[Administration]:
    """What is administered, for the shell: over a database with this version's tables."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with Database.open(settings.database) as database:
        await migrate(database)
        yield Administration(database)
