"""`llm-backend db`: the database."""

import asyncio

import typer

from llm_backend.cli.failing import fail
from llm_backend.cli.options import Config
from llm_backend.settings import load_settings

__all__ = ["commands"]

commands = typer.Typer(help="The database.")


@commands.command("migrate")
def db_migrate(config: Config = None) -> None:
    """Bring the database's tables to this version (serve does it by itself)."""
    from llm_backend.app import migrate_database
    from llm_backend.store import StoreError

    settings = load_settings({}, config)
    try:
        asyncio.run(migrate_database(settings))
    except StoreError as error:
        fail(str(error))
    print("The database is at this version's tables.")
