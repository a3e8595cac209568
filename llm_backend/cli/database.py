"""Settings of commands that use the database."""

import sys

from llm_backend.cli.options import Config, DataDir
from llm_backend.settings import Settings, load_settings


def database_settings(config: Config, data_dir: DataDir) -> Settings:
    """Load the settings, and print which database the command uses to standard error."""
    flags = {} if data_dir is None else {"data_dir": data_dir}
    settings = load_settings(flags, config)
    print(f"llm-backend: the database is {settings.public_database_url}", file=sys.stderr)
    return settings
