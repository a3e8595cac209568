"""`llm-backend db`: the database."""

import asyncio

import typer

from llm_backend.cli.database import database_settings
from llm_backend.cli.failing import fail
from llm_backend.cli.options import Config, DataDir

__all__ = ["commands"]

commands = typer.Typer(help="The database.")


@commands.command("migrate")
def db_migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Bring the database's tables to this version (serve does it by itself)."""
    from llm_backend.app import migrate_database
    from llm_backend.store import StoreError

    settings = database_settings(config, data_dir)
    try:
        asyncio.run(migrate_database(settings))
    except StoreError as error:
        fail(str(error))
    print("The database is at this version's tables.")


@commands.command("current")
def db_current(config: Config = None, data_dir: DataDir = None) -> None:
    """Print the revision of the database's tables, and that of this version; changes nothing."""
    from llm_backend.store import Database, StoreError, revisions

    settings = database_settings(config, data_dir)

    async def found() -> tuple[str | None, str]:
        async with Database.open(settings.database) as database:
            return await revisions(database)

    path = settings.data_dir / "llm-backend.sqlite3"
    if settings.database_url is None and not path.exists():
        fail(f"There is no database yet: {path} is made when the server starts.")
    try:
        there, needed = asyncio.run(found())
    except StoreError as error:
        fail(str(error))
    print(f"The tables are at revision {there or 'none'}; this version's are at {needed}.")


@commands.command("recount")
def db_recount(config: Config = None, data_dir: DataDir = None) -> None:
    """Count anew how many bytes `files_limit_bytes` bounds: where rows were changed by hand, or by
    servers of an older version."""
    from llm_backend.app import recount_file_bytes
    from llm_backend.store import StoreError

    settings = database_settings(config, data_dir)
    try:
        counted, there = asyncio.run(recount_file_bytes(settings))
    except StoreError as error:
        fail(str(error))
    print(f"Files and parts of uploads have {there} bytes; {counted} were counted before.")
