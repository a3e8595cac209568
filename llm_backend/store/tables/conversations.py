"""Tables of conversations and responses, and of the items in both."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)

from llm_backend.store.database.metadata import SEQUENCE, metadata
from llm_backend.store.tables.object_table import object_table, part_of, size_bytes

# Items: input and output of models. Clients refer to an item by its id alone, so ids are unique
# over all conversations and responses. Conversations and responses contain items in order. An item
# is deleted with the last object that contains it.
items = Table(
    "items",
    metadata,
    Column("seq", SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("item", JSON, nullable=False),
    size_bytes(),
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

# `previous_id` and `conversation_id` are no foreign keys: their targets may be deleted.
responses = object_table(
    "responses",
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", JSON, nullable=False),  # the response object that the client got
    size_bytes(),
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
