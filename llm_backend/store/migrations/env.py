"""Alembic's environment, run for every command, on the connection in
`context.config.attributes`."""

from alembic import context

from llm_backend.store import tables  # noqa: F401 # in the metadata
from llm_backend.store.database.metadata import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
