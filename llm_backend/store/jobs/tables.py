"""The table of work that outlives the request that asked for it.

A lease is a `due_at` that lies ahead: a job is anybody's when it is due, whether nobody has had it
yet or whoever had it has died.
"""

from sqlalchemy import JSON, Column, Double, Index, Integer, Table, Text

from llm_backend.store.tables import SEQUENCE, metadata

__all__ = ["jobs"]

jobs = Table(
    "jobs",
    metadata,
    Column("seq", SEQUENCE, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the id of what it is about
    Column("details", JSON, nullable=False),
    Column("due_at", Double, nullable=False),  # unix seconds
    Column("attempts", Integer, nullable=False),  # since it last got on
    Column("lease", Text, index=True),  # of whoever has it: one for each time it is claimed
    Column("place", Text),  # where alone it can be done; None for anywhere
    Index(None, "kind", "due_at", "seq"),
    Index(None, "kind", "subject"),
)
