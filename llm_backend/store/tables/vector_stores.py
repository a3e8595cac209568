"""Tables of vector stores; the vectors themselves are in the vector index."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from llm_backend.store.database.metadata import SEQUENCE, metadata
from llm_backend.store.tables.object_table import object_table, part_of

# `is_emptied` is set when the store has expired: its row stays, but its files are deleted.
# `deleted_at` is set when the store is deleted: it is missing from then on, and a job deletes its
# rows. Files that are deleted go to such a store, made for them.
vector_stores = object_table(
    "vector_stores",
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("metadata", JSON, nullable=False),
    Column("expires_after_days", Integer),
    Column("last_active_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("embedding_model", Text, nullable=False),
    Column("index_name", Text),  # name of the vector index that has its vectors
    Column("dimensions", Integer),  # set once the index has a collection for it
    Column("is_emptied", Boolean, nullable=False),
    Column("deleted_at", BigInteger),
)
Index(None, vector_stores.c.owner, vector_stores.c.created_at, vector_stores.c.seq)
NOT_DELETED = vector_stores.c.deleted_at.is_(None)
"""The condition of stores that are not deleted."""


def _of_vector_store() -> Column[int]:
    reference = ForeignKey(vector_stores.c.seq, ondelete="CASCADE")
    return Column("store_seq", SEQUENCE, reference, nullable=False)


vector_store_batches = object_table(
    "vector_store_batches", _of_vector_store(), Column("is_cancelled", Boolean, nullable=False)
)
Index(None, vector_store_batches.c.store_seq)

# Files in vector stores. `id` names a file's points in the vector index, and is never used again.
# Clients use `file_id`, which is no foreign key, so that it may be the file of an upstream.
vector_store_files = object_table(
    "vector_store_files",
    _of_vector_store(),
    Column("file_id", Text, nullable=False, index=True),
    Column(
        "batch_seq",
        SEQUENCE,
        ForeignKey(vector_store_batches.c.seq, ondelete="SET NULL"),
        index=True,
    ),
    Column("status", Text, nullable=False),
    Column("error", JSON, nullable=False),
    Column("filename", Text, nullable=False),
    Column("usage_bytes", BigInteger, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("chunking", JSON, nullable=False),
    CheckConstraint("status IN ('in_progress', 'completed', 'cancelled', 'failed')", name="status"),
    UniqueConstraint("store_seq", "file_id"),
)
Index(  # covers the query that counts a store's files
    None,
    vector_store_files.c.store_seq,
    vector_store_files.c.status,
    vector_store_files.c.usage_bytes,
    vector_store_files.c.owner,
)
Index(
    None,
    vector_store_files.c.store_seq,
    vector_store_files.c.created_at,
    vector_store_files.c.seq,
)

# Chunks of files' texts; `point_id` is the id of a chunk's point in the vector index.
vector_store_chunks = Table(
    "vector_store_chunks",
    metadata,
    part_of(vector_store_files, "file_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("point_id", Text, nullable=False, unique=True),
    Column("text", Text, nullable=False),
    Column("repeated", Integer, nullable=False),  # characters that the chunk before has, too
)
