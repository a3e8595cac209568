"""Items as rows: putting them in, finding them by id, and forgetting those that nobody holds."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select

from llm_backend.store.bodies import encoded, is_text
from llm_backend.store.errors import Missing
from llm_backend.store.stored_response import StoredItem
from llm_backend.store.tables import (
    conversation_items,
    conversations,
    items,
    response_items,
    responses,
)

__all__ = ["add", "forget_unheld", "get", "item_of"]

_INSERT = insert(items).returning(items.c.seq)
_SUFFIX = 8  # characters that tell apart items that came with the same id
_AT_ONCE = 500  # parameters of one statement, below what either database takes


def add(connection: Connection, stored: Sequence[StoredItem]) -> list[int]:
    """Insert items that are not there yet; the sequence numbers of all.

    Clients send back what they were given, ids and all, and not always as it was: an item whose id
    another one has gets an id of its own.
    """
    return [_add(connection, one) for one in stored]


def get(connection: Connection, id: str) -> StoredItem:
    """The item with this id, whoever of the owner's holds it. Raises `Missing`."""
    rows = connection.execute(select(items).where(items.c.id == id)).all() if is_text(id) else ()
    if not rows or not _is_held(connection, rows[0].seq):
        raise Missing(id)
    return item_of(rows[0])


def item_of(row: "Row[*tuple[Any, ...]]") -> StoredItem:
    """The item of a row that has its columns."""
    return StoredItem(id=row.id, item=row.item)


def forget_unheld(connection: Connection, seqs: Sequence[int]) -> int:
    """Delete those of these items that no conversation and no response holds; their bytes."""
    freed_bytes = 0
    for start in range(0, len(seqs), _AT_ONCE):
        part = seqs[start : start + _AT_ONCE]
        unheld = delete(items).where(
            items.c.seq.in_(part),
            ~exists().where(conversation_items.c.item_seq == items.c.seq),
            ~exists().where(response_items.c.item_seq == items.c.seq),
        )
        freed_bytes += sum(connection.scalars(unheld.returning(items.c.size_bytes)))
    return freed_bytes


def _is_held(connection: Connection, seq: int) -> bool:
    """Whether a response or a conversation holds the item, of those that can be seen."""
    held = (
        select(responses.c.seq).join(response_items).where(response_items.c.item_seq == seq),
        select(conversations.c.seq)
        .join(conversation_items)
        .where(conversation_items.c.item_seq == seq),
    )
    return any(connection.execute(one.limit(1)).first() for one in held)


def _add(connection: Connection, stored: StoredItem) -> int:
    known = connection.execute(select(items).where(items.c.id == stored.id)).first()
    if known is not None and known.item == dict(stored.item):
        return int(known.seq)
    id = stored.id if known is None else f"{stored.id}_{uuid.uuid4().hex[:_SUFFIX]}"
    item = encoded({**stored.item, "id": id})
    row = {"id": id, "item": item, "size_bytes": len(item)}
    return int(connection.execute(_INSERT, row).scalar_one())
