"""Tables of batches: the batches, and the answers to their lines until these are in files."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    Table,
    Text,
)

from llm_backend.store.database.metadata import metadata
from llm_backend.store.tables.object_table import object_table, part_of

# Ids of files are not foreign keys, as the files may be deleted.
batches = object_table(
    "batches",
    Column("key_id", Text),  # of the key of its requests; None if keys are off
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False, index=True),
    Column("completion_window", Text, nullable=False),
    Column("metadata", JSON),
    Column("output_lifetime_s", BigInteger),
    Column("status", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("times", JSON, nullable=False),  # time of each state, by the document's names
    Column("errors", JSON, nullable=False),  # of an invalid input
    Column("model", Text),  # of all its lines
    Column("total", Integer, nullable=False),  # lines; the next two count finished jobs only
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("usage", JSON),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    CheckConstraint(
        "status IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', "
        "'cancelling', 'cancelled')",
        name="status",
    ),
)
Index(None, batches.c.owner, batches.c.created_at, batches.c.seq)
Index(None, batches.c.status, batches.c.expires_at)

BATCH_ENDS = ("failed", "completed", "expired", "cancelled")
"""States of a batch that has ended."""

# Answers of a batch that has not ended. A line with an answer is not run again.
batch_lines = Table(
    "batch_lines",
    metadata,
    part_of(batches, "batch_seq"),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("is_error", Boolean, nullable=False),
    Column("text", Text, nullable=False),  # as the output file or the error file holds it
    Column("input_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("reasoning_tokens", Integer, nullable=False),
    Index(None, "batch_seq", "is_error", "line"),
)
