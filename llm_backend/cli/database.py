"""Settings of commands that use the database, and its revisions."""

import sys

from llm_backend.cli.options import Config, DataDir
from llm_backend.settings import Settings, load_settings


def database_settings(config: Config, data_dir: DataDir) -> Settings:
    """Load the settings, and print which database the command uses to standard error."""
    flags = {} if data_dir is None else {"data_dir": data_dir}
    settings = load_settings(flags, config)
    print(f"llm-backend: the database is {settings.public_database_url}", file=sys.stderr)
    return settings


async def load_revisions(settings: Settings) -> tuple[str | None, str]:
    """Load the revisions of the database's tables and of this version. Raises `StoreError`."""
    from llm_backend.store import Database, revisions

    async with Database.open(settings.database) as database:
        return await revisions(database)
