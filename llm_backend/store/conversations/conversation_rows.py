"""Conversations as rows: SQL statements, each function one unit of work on a connection."""

import time
from collections.abc import Mapping, Sequence
from functools import partial

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from llm_backend.store.conversations import item_rows
from llm_backend.store.conversations.stored_conversation import StoredConversation, StoredItem
from llm_backend.store.keyset_pages import Page, PageRequest
from llm_backend.store.row_values import find_row
from llm_backend.store.tables.conversations import conversation_items, conversations, items

_SEQ = select(conversations.c.seq)
_SEQ_LOCKED = _SEQ.with_for_update(key_share=True)  # locked until the transaction ends


def add(
    connection: Connection, conversation: StoredConversation, first: Sequence[StoredItem]
) -> None:
    """Inserts the conversation with its first items."""
    row = {
        "id": conversation.id,
        "created_at": conversation.created_at,
        "owner": conversation.owner,
        "metadata": dict(conversation.metadata),
        "changed_at": conversation.created_at,
    }
    statement = insert(conversations).returning(conversations.c.seq)
    seq = connection.execute(statement, row).scalar_one()
    _append(connection, seq, first)


def get(connection: Connection, id: str) -> StoredConversation:
    """Returns the conversation with this id. Raises `Missing`."""
    found = select(conversations).where(conversations.c.id == id)
    row = find_row(connection, found, id)
    return StoredConversation(
        id=row.id, created_at=row.created_at, metadata=row.metadata, owner=row.owner
    )


def update_metadata(
    connection: Connection, id: str, metadata: Mapping[str, str]
) -> StoredConversation:
    """Replaces the metadata of the conversation. Raises `Missing`."""
    seq = _seq(connection, id, _SEQ_LOCKED)
    change = update(conversations).where(conversations.c.seq == seq)
    connection.execute(change.values(metadata=dict(metadata)))
    return get(connection, id)


def delete_conversation(connection: Connection, id: str) -> None:
    """Deletes the conversation, and its items that nothing else contains. Raises `Missing`."""
    delete_conversations(connection, [_seq(connection, id, _SEQ_LOCKED)])


def delete_conversations(connection: Connection, seqs: Sequence[int]) -> int:
    """Deletes these conversations, and their items that nothing else contains; returns the bytes of
    the deleted items."""
    if not seqs:
        return 0
    of_these = conversation_items.c.conversation_seq.in_(seqs)
    item_seqs = list(connection.scalars(select(conversation_items.c.item_seq).where(of_these)))
    connection.execute(delete(conversations).where(conversations.c.seq.in_(seqs)))
    return item_rows.delete_unreferenced(connection, item_seqs)


def lock(connection: Connection, id: str) -> None:
    """Locks the conversation against other appends until the transaction ends. Raises `Missing`."""
    _seq(connection, id, _SEQ_LOCKED)


def sizes(connection: Connection, seqs: Sequence[int]) -> dict[int, int]:
    """Returns the bytes of the items of each conversation, by its `seq`. Items that other objects
    contain too are counted; a conversation without items is omitted."""
    conversation_seq = conversation_items.c.conversation_seq
    sums = (
        select(conversation_seq, func.sum(items.c.size_bytes))
        .join(items, items.c.seq == conversation_items.c.item_seq)
        .where(conversation_seq.in_(seqs))
        .group_by(conversation_seq)
    )
    return {seq: int(size_bytes) for seq, size_bytes in connection.execute(sums)}


def add_items(connection: Connection, id: str, added: Sequence[StoredItem]) -> list[StoredItem]:
    """Appends items, and returns them as stored. Raises `Missing`."""
    seqs = _append(connection, _seq(connection, id, _SEQ_LOCKED), added)
    return item_rows.read(connection, seqs)


def find_items(connection: Connection, request: PageRequest, id: str) -> Page[StoredItem]:
    """Returns a page of the items. Raises `Missing`, `UnknownCursor`."""
    seq = _seq(connection, id)
    position, find_position = conversation_items.c.position, partial(_position, connection, seq)
    return item_rows.find_page(connection, _items_of(seq), request, position, find_position)


def all_items(connection: Connection, id: str) -> list[StoredItem]:
    """Returns all items of the conversation, in order. Raises `Missing`."""
    seq = _seq(connection, id)
    rows = connection.execute(_items_of(seq).order_by(conversation_items.c.position))
    return [item_rows.item_of(row) for row in rows]


def items_until(connection: Connection, id: str, ends: Select[tuple[int]]) -> list[StoredItem]:
    """Returns the items up to the last one whose `seq` the statement `ends` selects; none if the
    conversation contains none of those. Raises `Missing`."""
    seq = _seq(connection, id)
    position = conversation_items.c.position
    is_end = conversation_items.c.item_seq.in_(ends)
    end = (
        select(func.max(position))
        .where(conversation_items.c.conversation_seq == seq, is_end)
        .scalar_subquery()
    )
    rows = connection.execute(_items_of(seq).where(position <= end).order_by(position))
    return [item_rows.item_of(row) for row in rows]


def get_item(connection: Connection, id: str, item_id: str) -> StoredItem:
    """Returns one item of the conversation. Raises `Missing` for either id."""
    seq = _seq(connection, id)
    found = _items_of(seq).where(items.c.id == item_id)
    row = find_row(connection, found, item_id)
    return item_rows.item_of(row)


def delete_item(connection: Connection, id: str, item_id: str) -> StoredConversation:
    """Removes an item, and returns the conversation. Raises `Missing` for either id."""
    seq = _seq(connection, id, _SEQ_LOCKED)
    get_item(connection, id, item_id)
    item_seq = connection.execute(select(items.c.seq).where(items.c.id == item_id)).scalar_one()
    connection.execute(
        delete(conversation_items).where(
            conversation_items.c.conversation_seq == seq, conversation_items.c.item_seq == item_seq
        )
    )
    item_rows.delete_unreferenced(connection, [item_seq])
    return get(connection, id)


def _append(connection: Connection, seq: int, added: Sequence[StoredItem]) -> list[int]:
    """Appends items, and returns their `seq`s. Sets the time of the last change, after which the
    conversation is deleted in the end."""
    of_this = conversation_items.c.conversation_seq == seq
    present = select(conversation_items.c.item_seq).where(of_this)
    item_seqs = item_rows.add(connection, added, excluded=present)
    if not item_seqs:
        return []
    last = connection.scalar(select(func.max(conversation_items.c.position)).where(of_this))
    start = 0 if last is None else last + 1
    rows = [
        {"conversation_seq": seq, "position": start + offset, "item_seq": item_seq}
        for offset, item_seq in enumerate(item_seqs)
    ]
    connection.execute(insert(conversation_items), rows)
    changed = update(conversations).where(conversations.c.seq == seq)
    connection.execute(changed.values(changed_at=int(time.time())))
    return item_seqs


def _seq(connection: Connection, id: str, statement: Select[tuple[int]] = _SEQ) -> int:
    found = statement.where(conversations.c.id == id)
    return int(find_row(connection, found, id).seq)


def _items_of(seq: int) -> Select[tuple[str, object]]:
    return (
        select(items.c.id, items.c.item)
        .join(conversation_items, conversation_items.c.item_seq == items.c.seq)
        .where(conversation_items.c.conversation_seq == seq)
    )


def _position(connection: Connection, seq: int, item_id: str) -> int:
    found = (
        select(conversation_items.c.position)
        .join(items, items.c.seq == conversation_items.c.item_seq)
        .where(conversation_items.c.conversation_seq == seq, items.c.id == item_id)
    )
    return int(find_row(connection, found, item_id).position)
