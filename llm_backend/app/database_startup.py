"""Opens the database and migrates its tables to this version: immediately, or once it is
reachable."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from llm_backend.metrics import Metrics
from llm_backend.settings import Settings, SettingsError
from llm_backend.store import Database, StoreError, StoreUnavailable, migrate, recount_files
from llm_backend.store.administration import Administration

log = logging.getLogger(__name__)

DATABASE_RETRY_S = 2.0


@asynccontextmanager
async def open_database(settings: Settings, metrics: Metrics) -> AsyncIterator[Database]:
    """Opens the database and migrates its tables. If a database server cannot be reached, yields
    the database nevertheless, and retries the migration in the background."""
    async with AsyncExitStack() as stack:
        opening = Database.open(
            settings.database,
            metrics.write_seconds.observe,
            metrics.writes_waiting.inc,
            metrics.write_failures.inc,
            page_limit_bytes=settings.page_limit_bytes,
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


def make_data_folder(settings: Settings) -> None:
    """Makes the data folder if there is none. Raises `SettingsError`."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"The data folder {settings.data_dir} cannot be made: {error.strerror}. Set `data_dir` "
            "(LLM_BACKEND_DATA_DIR) to another folder."
        ) from error


async def migrate_later(database: Database) -> None:
    """Retries until the tables are migrated or an error needs the operator."""
    while True:
        await asyncio.sleep(DATABASE_RETRY_S)
        try:
            await migrate(database)
        except StoreUnavailable:
            continue  # logged once; readiness reports it as long as it lasts
        except StoreError as error:  # needs the operator; at startup it ends the server
            log.critical("database_not_migrated", extra={"reason": str(error)})
            return
        log.info("database_available")
        return


async def migrate_for_others(settings: Settings) -> None:
    """Migrates the tables before other processes open the database. If the database server cannot
    be reached, logs that; the other processes then migrate once it can."""
    try:
        await migrate_database(settings)
    except StoreUnavailable as error:
        if not settings.has_database_server:
            raise
        log.warning("database_unavailable", extra={"reason": str(error)})


async def migrate_database(settings: Settings) -> None:
    """Migrates the database's tables to this version."""
    make_data_folder(settings)
    async with Database.open(settings.database) as database:
        await migrate(database)


async def recount_file_bytes(settings: Settings) -> tuple[int, int]:
    """Recounts the bytes of all files. Returns the counted bytes before and after."""
    make_data_folder(settings)
    async with Database.open(settings.database) as database:
        await migrate(database)
        return await recount_files(database)


@asynccontextmanager
async def open_administration(settings: Settings) -> AsyncIterator[Administration]:
    """Opens the administered records for the command line, on a migrated database."""
    make_data_folder(settings)
    async with Database.open(settings.database) as database:
        await migrate(database)
        yield Administration(database)
