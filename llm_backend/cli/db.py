"""`llm-backend db`: migrations and repairs of the database."""

import asyncio

import typer

from llm_backend.cli.database_settings import (
    database_settings,
    existing_database_settings,
    load_revisions,
)
from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import Config, DataDir

commands = typer.Typer(help="The database.")


@commands.command("migrate")
def db_migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Migrate the database's tables to this version (`serve` does so at its start)."""
    from llm_backend.app import migrate_database
    from llm_backend.store import StoreError

    settings = database_settings(config, data_dir)
    try:
        asyncio.run(migrate_database(settings))
    except StoreError as error:
        exit_with_error(str(error))
    print("The database's tables are those of this version.")


@commands.command("current")
def db_current(config: Config = None, data_dir: DataDir = None) -> None:
    """Print the revision of the database's tables and the one that this version needs. Changes
    nothing."""
    from llm_backend.store import StoreError

    settings = existing_database_settings(config, data_dir)
    try:
        current, needed = asyncio.run(load_revisions(settings))
    except StoreError as error:
        exit_with_error(str(error))
    print(f"The tables are at revision {current or 'none'}; this version needs {needed}.")


@commands.command("recount")
def db_recount(config: Config = None, data_dir: DataDir = None) -> None:
    """Recount the bytes of files that count for `files_limit_bytes`.

    Needed after rows were changed by hand or by servers of an older version.
    """
    from llm_backend.app import recount_file_bytes
    from llm_backend.store import StoreError

    settings = existing_database_settings(config, data_dir)
    try:
        counted, actual = asyncio.run(recount_file_bytes(settings))
    except StoreError as error:
        exit_with_error(str(error))
    print(f"Files and parts of uploads have {actual} bytes; the old count was {counted}.")
