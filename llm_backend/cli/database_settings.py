"""Settings of commands that use the database, and its revisions."""

import sys

from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import Config, DataDir
from llm_backend.settings import Settings, load_settings


def database_settings(config: Config, data_dir: DataDir) -> Settings:
    """Load the settings, and print which database the command uses to standard error."""
    flags = {} if data_dir is None else {"data_dir": data_dir}
    settings = load_settings(flags, config)
    print(f"llm-backend: the database is {settings.public_database_url}", file=sys.stderr)
    return settings


def existing_database_settings(config: Config, data_dir: DataDir) -> Settings:
    """Load the settings as `database_settings` does; exit with an error if SQLite's file is
    missing, which another command would create."""
    settings = database_settings(config, data_dir)
    if (path := settings.missing_sqlite_file) is not None:
        exit_with_error(f"There is no database yet: `serve` or `keys create` creates {path}.")
    return settings


async def load_revisions(settings: Settings) -> tuple[str | None, str]:
    """Load the revision of the database's tables (None if there are none), and the one that this
    version needs. Raises `StoreError`."""
    from llm_backend.store import Database, current_and_needed_revision

    async with Database.open(settings.database) as database:
        return await current_and_needed_revision(database)
