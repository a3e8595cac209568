"""Command that writes the next revision: the difference between the tables and the migrations."""

import sys
import tempfile

from alembic import command
from sqlalchemy import create_engine

from llm_backend.store.migrations.migration import configuration, upgrade
from llm_backend.store.migrations.schema import REVISIONS


def main(message: str) -> None:
    """Compares a database made by the migrations with the tables, and writes the difference."""
    with (
        tempfile.NamedTemporaryFile(suffix=".db") as file,
        create_engine(f"sqlite:///{file.name}").connect() as connection,
    ):
        upgrade(connection)
        number = f"{len(REVISIONS) + 1:04}"
        command.revision(configuration(connection), message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
