"""Table of jobs: work that outlives its request.

A lease is a `due_at` in the future. A due job can be claimed, whether it was never claimed or its
holder has died.
"""

from sqlalchemy import JSON, Column, Double, Index, Integer, Table, Text

from llm_backend.store.tables import SEQUENCE, metadata

__all__ = ["jobs"]

jobs = Table(
    "jobs",
    metadata,
    Column("seq", SEQUENCE, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the id of its subject
    Column("details", JSON, nullable=False),
    Column("due_at", Double, nullable=False),  # unix seconds
    Column("attempts", Integer, nullable=False),  # since its last progress
    Column("lease", Text, index=True),  # of its holder: a new one for each claim
    Column("place", Text),  # the only place that can do it; None for any
    Index(None, "kind", "due_at", "seq"),
    Index(None, "kind", "subject"),
)
