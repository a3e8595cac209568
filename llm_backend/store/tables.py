"""The tables, as one `MetaData` that the migrations are held against.

Everything a client can list is a *stored object*: `stored_object()` gives it the same five columns,
so that ids, ownership and pagination are one idea for chats now and for whatever comes beside them.

* `seq` is the primary key and grows with every insert. It breaks ties between objects of the same
  second, in the order in which they were stored; ids are random and could not. It never leaves the
  store.
* `id` is the name that clients use, with OpenAI's prefix.
* `created_at` is in unix seconds, as OpenAI has it, and orders every list.
* `owner` is the project that the object belongs to, and null is the default one: `ownership.py`
  writes it, and lets nobody see what is another's.

Bodies are `JSON`, on PostgreSQL too and on purpose: `JSONB` refuses NUL characters and reorders
keys, and what was answered has to come back as it was answered. What is searched for has a column
or a table of its own.
"""

from typing import Any  # a column may hold anything

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from llm_backend.store.ownership import OWNED

__all__ = [
    "BATCH_ENDS",
    "batch_lines",
    "batches",
    "chat_messages",
    "chat_metadata",
    "chats",
    "conversation_items",
    "conversations",
    "files",
    "items",
    "jobs",
    "loose_blobs",
    "metadata",
    "response_events",
    "response_items",
    "responses",
    "stored_object",
    "vector_store_batches",
    "vector_store_chunks",
    "vector_store_files",
    "vector_stores",
]

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite numbers rows by itself only for a primary key declared INTEGER, which has 64 bits there.
_Sequence = BigInteger().with_variant(Integer, "sqlite")


def stored_object(
    name: str,
    *parts: Column[Any] | CheckConstraint | UniqueConstraint,
    is_owned: bool = True,
) -> Table:
    """A table of objects that clients list by time: the common columns, `parts`, the time index.

    Those that are owned are seen by their owners only (`ownership.py`).
    """
    return Table(
        name,
        metadata,
        Column("seq", _Sequence, primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("created_at", BigInteger, nullable=False),
        Column("owner", Text),
        *parts,
        Index(None, "created_at", "seq"),
        info={OWNED: is_owned},
    )


def _size_bytes() -> Column[int]:
    """How much a row and what hangs on it take, for whoever must keep all of them within a bound:
    its index makes that a sum of what the index holds.
    """
    return Column("size_bytes", BigInteger, nullable=False, server_default=text("0"), index=True)


def _part_of(owner: Table, column: str) -> Column[int]:
    """The first half of the primary key of a table whose rows live and die with `owner`'s."""
    reference = ForeignKey(owner.c.seq, ondelete="CASCADE")
    return Column(column, _Sequence, reference, primary_key=True, autoincrement=False)


chats = stored_object(
    "chats",
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("request", JSON, nullable=False),  # the body as it was asked, without its messages
    Column("response", JSON, nullable=False),  # the completion object as it was answered
    _size_bytes(),
    CheckConstraint("status IN ('completed', 'incomplete')", name="status"),
)
Index(None, chats.c.model, chats.c.created_at, chats.c.seq)

chat_messages = Table(
    "chat_messages",
    metadata,
    _part_of(chats, "chat_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("message", JSON, nullable=False),
)

# `created_at` is the chat's: with it, one index both finds and orders the chats that have a value.
chat_metadata = Table(
    "chat_metadata",
    metadata,
    _part_of(chats, "chat_seq"),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "key", "value", "created_at", "chat_seq"),
)

files = stored_object(
    "files",
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),  # the client's name for it, and nobody else's
    Column("media_type", Text, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("content", JSON, nullable=False),  # the blobs that hold its bytes
    _size_bytes(),
)
Index(None, files.c.purpose, files.c.created_at, files.c.seq)

uploads = stored_object(
    "uploads",
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),  # of the file that is to be
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
        _Sequence,
        ForeignKey(uploads.c.seq, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("created_at", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False, index=True),  # summed: see _size_bytes
    Column("content", JSON, nullable=False),  # the blob that holds its bytes
)

# Blobs in the object store that belong to no row: being written, or to be removed.
loose_blobs = Table(
    "loose_blobs",
    metadata,
    Column("key", Text, primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("is_doomed", Boolean, nullable=False),
)

# Work that outlives the request that asked for it. A lease is a `due_at` that lies ahead: a job is
# anybody's when it is due, whether nobody has had it yet or whoever had it has died.
jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Sequence, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the id of what it is about
    Column("details", JSON, nullable=False),
    Column("due_at", Double, nullable=False),  # unix seconds
    Column("attempts", Integer, nullable=False),  # since it last got on
    Column("lease", Text, index=True),  # of whoever has it: one for each time it is claimed
    Index(None, "kind", "due_at", "seq"),
    Index(None, "kind", "subject"),
)

# `input_file_id` and the other files are names and not references: what they name may be deleted.
batches = stored_object(
    "batches",
    Column("key_id", Text),  # of the key that its lines are asked with; None where none is wanted
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False, index=True),
    Column("completion_window", Text, nullable=False),
    Column("metadata", JSON),
    Column("output_lifetime_s", BigInteger),
    Column("status", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("times", JSON, nullable=False),  # when it came to which state, by the document's names
    Column("errors", JSON, nullable=False),  # why its input cannot be used
    Column("model", Text),  # of all its lines
    Column("total", Integer, nullable=False),  # lines; below, once it has ended
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
Index(None, batches.c.status, batches.c.expires_at)

BATCH_ENDS = ("failed", "completed", "expired", "cancelled")
"""States of a batch to which nothing more happens."""

# Answers of a batch that has not ended: a line that has one is never asked again.
batch_lines = Table(
    "batch_lines",
    metadata,
    _part_of(batches, "batch_seq"),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("is_error", Boolean, nullable=False),
    Column("text", Text, nullable=False),  # as the output file or the error file holds it
    Column("input_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("reasoning_tokens", Integer, nullable=False),
    Index(None, "batch_seq", "is_error", "line"),
)

# What is said, in any direction, is an item. Items are told apart by id alone, as clients refer to
# them without saying where; conversations and responses hold them in order, and one that nobody
# holds any more is deleted with its last holder.
items = Table(
    "items",
    metadata,
    Column("seq", _Sequence, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("item", JSON, nullable=False),
    _size_bytes(),
)

conversations = stored_object(
    "conversations",
    Column("metadata", JSON, nullable=False),
    Column("changed_at", BigInteger, nullable=False, server_default=text("0"), index=True),
)


def _held_item() -> Column[int]:
    return Column("item_seq", _Sequence, ForeignKey(items.c.seq), nullable=False, index=True)


conversation_items = Table(
    "conversation_items",
    metadata,
    _part_of(conversations, "conversation_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _held_item(),
    Index(None, "conversation_seq", "item_seq", unique=True),  # an id is one place in a list
)

# `previous_id` and `conversation_id` are names and not references: what they name may be deleted.
responses = stored_object(
    "responses",
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", JSON, nullable=False),  # the response object as it was answered
    _size_bytes(),
    Column("previous_id", Text, index=True),
    Column("conversation_id", Text),
)

response_items = Table(
    "response_items",
    metadata,
    _part_of(responses, "response_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _held_item(),
    Column("is_output", Boolean, nullable=False),
    Index(None, "response_seq", "item_seq", unique=True),
)

# What was told of a response that is answered in the background, some events in each row.
response_events = Table(
    "response_events",
    metadata,
    _part_of(responses, "response_seq"),
    Column("last_number", Integer, primary_key=True, autoincrement=False),
    Column("events", Text, nullable=False),  # one a line, as JSON
)

# Its name for clients is its id; what it holds is told by its files. `is_emptied` when its time is
# over: it stays, but what it held is gone.
vector_stores = stored_object(
    "vector_stores",
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("metadata", JSON, nullable=False),
    Column("expires_after_days", Integer),
    Column("last_active_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("embedding_model", Text, nullable=False),
    Column("index_name", Text),  # of the vector index that alone has its vectors
    Column("dimensions", Integer),  # once there is a collection of them in it
    Column("is_emptied", Boolean, nullable=False),
)


def _of_vector_store() -> Column[int]:
    reference = ForeignKey(vector_stores.c.seq, ondelete="CASCADE")
    return Column("store_seq", _Sequence, reference, nullable=False)


vector_store_batches = stored_object(
    "vector_store_batches", _of_vector_store(), Column("is_cancelled", Boolean, nullable=False)
)
Index(None, vector_store_batches.c.store_seq)

# A file in a vector store. Its `id` names its points in the vector index, and is never used again;
# clients call it by `file_id`, a name and not a reference: a file may be the upstream's one day.
vector_store_files = stored_object(
    "vector_store_files",
    _of_vector_store(),
    Column("file_id", Text, nullable=False, index=True),
    Column(
        "batch_seq",
        _Sequence,
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
Index(  # all that a count of a store's files asks for
    None,
    vector_store_files.c.store_seq,
    vector_store_files.c.status,
    vector_store_files.c.usage_bytes,
)
Index(
    None,
    vector_store_files.c.store_seq,
    vector_store_files.c.created_at,
    vector_store_files.c.seq,
)

# The texts that are found; the vector index knows them by `point_id`.
vector_store_chunks = Table(
    "vector_store_chunks",
    metadata,
    _part_of(vector_store_files, "file_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("point_id", Text, nullable=False, unique=True),
    Column("text", Text, nullable=False),
    Column("repeated", Integer, nullable=False),  # characters that the chunk before has, too
)
