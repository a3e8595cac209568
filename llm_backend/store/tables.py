"""The tables of the store, as one `MetaData` that the migrations are checked against. The packages
administration, batches, jobs, vector_stores and webhooks have modules `tables.py` of their own.

Each object that clients can list is a *stored object*: `object_table()` gives its table the same
five columns and an index, so that ids, ownership and pagination work the same for all.

* `seq` is the primary key and grows with every insert. It orders objects of the same second as
  they were stored; ids are random and could not. Clients never see it.
* `id` is the name that clients use, with OpenAI's prefix.
* `created_at` is in unix seconds, as in OpenAI's API, and orders every list.
* `owner` is the project that the object belongs to; null is the default project. `ownership.py`
  writes it, and hides the objects of other owners.

Bodies are `JSON`, on PostgreSQL too and on purpose: `JSONB` refuses NUL characters and reorders
keys, and an answer must be returned as it was. Searched values have columns or tables of their own.
"""

from typing import Any  # a column may have any type

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
SEQUENCE = BigInteger().with_variant(Integer, "sqlite")


def object_table(
    name: str,
    *parts: Column[Any] | CheckConstraint | UniqueConstraint,
    is_owned: bool = True,
) -> Table:
    """A table of objects that clients list by time: the common columns, `parts`, the time index.

    Objects of an owned table are visible to their owners only (`ownership.py`).
    """
    return Table(
        name,
        metadata,
        Column("seq", SEQUENCE, primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("created_at", BigInteger, nullable=False),
        Column("owner", Text),
        *parts,
        Index(None, "created_at", "seq"),
        info={OWNED: is_owned},
    )


def _size_bytes() -> Column[int]:
    """Bytes of a row and of the rows that depend on it, for limits on their total. The column has
    an index, so that the sum reads only the index."""
    return Column("size_bytes", BigInteger, nullable=False, server_default=text("0"), index=True)


def part_of(owner: Table, column: str) -> Column[int]:
    """The first column of the primary key of a table whose rows are deleted with `owner`'s."""
    reference = ForeignKey(owner.c.seq, ondelete="CASCADE")
    return Column(column, SEQUENCE, reference, primary_key=True, autoincrement=False)


chats = object_table(
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
    part_of(chats, "chat_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("message", JSON, nullable=False),
)

# `created_at` is the chat's: with it, one index both finds and orders the chats that have a value.
chat_metadata = Table(
    "chat_metadata",
    metadata,
    part_of(chats, "chat_seq"),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "key", "value", "created_at", "chat_seq"),
)

# Chats whose words the search does not know yet; the index itself is made by `chats/word_index.py`.
unindexed_chats = Table("unindexed_chats", metadata, part_of(chats, "chat_seq"))

files = object_table(
    "files",
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),  # the client's name for it; never a path here
    Column("media_type", Text, nullable=False),
    Column("expires_at", BigInteger, index=True),
    Column("content", JSON, nullable=False),  # the blobs with its bytes
    _size_bytes(),
)
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
    Column("size_bytes", BigInteger, nullable=False, index=True),  # summed: see _size_bytes
    Column("content", JSON, nullable=False),  # the blob with its bytes
)

# Counters: `administration` counts changes of administered objects, `file_bytes` is the total of
# files and parts of uploads, and `write_probes` is changed by checks of the database's health.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Orphaned blobs in the object store, which belong to no row: being written, or to be removed.
orphans = Table(
    "loose_blobs",
    metadata,
    Column("key", Text, primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("is_doomed", Boolean, key="is_marked_deleted", nullable=False),
)

# Items: input and output of models. Clients refer to an item by its id alone, so ids are unique
# over all conversations and responses. These contain items in order, and an item is deleted with
# the last object that contains it.
items = Table(
    "items",
    metadata,
    Column("seq", SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("item", JSON, nullable=False),
    _size_bytes(),
)

conversations = object_table(
    "conversations",
    Column("metadata", JSON, nullable=False),
    Column("changed_at", BigInteger, nullable=False, server_default=text("0"), index=True),
)


def _item_reference() -> Column[int]:
    return Column("item_seq", SEQUENCE, ForeignKey(items.c.seq), nullable=False, index=True)


conversation_items = Table(
    "conversation_items",
    metadata,
    part_of(conversations, "conversation_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _item_reference(),
    Index(None, "conversation_seq", "item_seq", unique=True),  # an item is in a list once
)

# `previous_id` and `conversation_id` are names and not references: what they name may be deleted.
responses = object_table(
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
    part_of(responses, "response_seq"),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _item_reference(),
    Column("is_output", Boolean, nullable=False),
    Index(None, "response_seq", "item_seq", unique=True),
)

# Events of background responses, several in each row.
response_events = Table(
    "response_events",
    metadata,
    part_of(responses, "response_seq"),
    Column("last_number", Integer, primary_key=True, autoincrement=False),
    Column("events", Text, nullable=False),  # one a line, as JSON
)
