"""Migrations: the revisions of the tables, run by Alembic on a connection that it is given.

`versions/` has one numbered file a revision, and `REVISIONS` of the module `schema` lists them. To
add one, change the tables, let Alembic write the difference, and review the file:

    python -m llm_backend.store.migrations "files have an expiry"

schema.py  revision of the tables: read, checked, brought to the one of this program
env.py     Alembic's environment
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["configuration", "upgrade"]


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for this connection; there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, target: str = "head") -> None:
    """Bring the tables to `target`, inside the transaction that the connection is in."""
    command.upgrade(configuration(connection), target)
