"""Tables of chat completions."""

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, Integer, Table, Text

from llm_backend.store.database.metadata import metadata
from llm_backend.store.tables.object_table import object_table, part_of, size_bytes

chats = object_table(
    "chats",
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("request", JSON, nullable=False),  # the body as it was asked, without its messages
    Column("response", JSON, nullable=False),  # the completion object as it was answered
    size_bytes(),
    CheckConstraint("status IN ('completed', 'incomplete')", name="status"),
)
Index(None, chats.c.owner, chats.c.created_at, chats.c.seq)
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
