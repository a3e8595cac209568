"""Tables of files, uploads and the blobs that hold their bytes."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Table,
    Text,
)

from llm_backend.store.database.metadata import SEQUENCE, metadata
from llm_backend.store.tables.object_table import object_table, size_bytes

files = object_table(
    "files",
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),  # as the client named it; never used as a path
    Column("media_type", Text, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("content", JSON, nullable=False),  # the blobs with its bytes
    size_bytes(),
)
Index(None, files.c.owner, files.c.created_at, files.c.seq)
Index(None, files.c.purpose, files.c.created_at, files.c.seq)

uploads = object_table(
    "uploads",
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),  # of the complete file
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("file_lifetime_s", BigInteger),
    Column("status", Text, nullable=False),
    CheckConstraint("status IN ('pending', 'completed', 'cancelled', 'expired')", name="status"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "upload_seq",
        SEQUENCE,
        ForeignKey(uploads.c.seq, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("created_at", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False, index=True),  # summed: see size_bytes
    Column("content", JSON, nullable=False),  # the blob with its bytes
)

# Orphaned blobs in the object store, which belong to no row: being written, or to be removed.
orphans = Table(
    "orphans",
    metadata,
    Column("key", Text, primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("is_marked_deleted", Boolean, nullable=False),
)
