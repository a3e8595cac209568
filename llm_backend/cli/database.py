"""The database that a command works on, and the line that says which one it is."""

import sys

from llm_backend.cli.options import Config, DataDir
from llm_backend.settings import Settings, load_settings

__all__ = ["database_settings"]


def database_settings(config: Config, data_dir: DataDir) -> Settings:
    """The settings of a command that works on the database, which is named on standard error."""
    given = {} if data_dir is None else {"data_dir": data_dir}
    settings = load_settings(given, config)
    print(f"llm-backend: the database is {settings.shown_database}", file=sys.stderr)
    return settings
