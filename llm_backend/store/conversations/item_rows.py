"""Items as rows: inserted, found by id, and deleted once no object contains them."""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, delete, exists, select

from llm_backend.store.conversations.stored_conversation import StoredItem
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.errors import Missing
from llm_backend.store.json_text import encode
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.row_values import is_id
from llm_backend.store.statement_parts import statement_parts
from llm_backend.store.tables.conversations import (
    conversation_items,
    conversations,
    items,
    response_items,
    responses,
)

_SUFFIX_CHARACTERS = 8  # random ones, which make an id unique


def add(
    connection: Connection, stored: Sequence[StoredItem], *, excluded: Select[tuple[int]]
) -> list[int]:
    """Inserts the items that are not stored yet, and returns the sequence numbers of all.
    `excluded` selects items that the conversation or response contains already; these are not
    reused.

    Clients send items back with their ids, sometimes changed, sometimes twice. An item gets a new
    id if another item has its id, or if the conversation or response contains its id already.
    """
    seqs: dict[int, int] = {}
    while len(seqs) < len(stored):  # repeated if another process inserted an id first
        waiting = {index: one for index, one in enumerate(stored) if index not in seqs}
        known = _lock_items(connection, [one.id for one in waiting.values()])
        _reuse(waiting, known, seqs, _find_excluded(connection, known, excluded))
        seqs |= _insert(connection, waiting, taken=known.keys())
    return [seqs[index] for index in range(len(stored))]


def read(connection: Connection, seqs: Sequence[int]) -> list[StoredItem]:
    """Returns the items with these sequence numbers, in their order."""
    rows: dict[int, Row[Any]] = {}
    for part in statement_parts(seqs):
        query = select(items).where(items.c.seq.in_(part))
        rows |= {row.seq: row for row in connection.execute(query)}
    return [item_of(rows[seq]) for seq in seqs]


def get(connection: Connection, id: str) -> StoredItem:
    """Returns the item with this id, if a response or conversation of the owner contains it. Raises
    `Missing`."""
    rows = connection.execute(select(items).where(items.c.id == id)).all() if is_id(id) else ()
    if not rows or not _is_referenced(connection, rows[0].seq):
        raise Missing(id)
    return item_of(rows[0])


def find_page(
    connection: Connection,
    listed: Select[Any],
    request: PageRequest,
    position: Column[int],
    find_position: Callable[[str], int],
) -> Page[StoredItem]:
    """Returns a page of the listed items. `find_position` returns an item's value of the column
    `position`, or raises `Missing`. Raises `UnknownCursor`."""
    bound = cursor_keys(request, lambda id: (find_position(id),))
    size = items.c.size_bytes
    rows, has_more = fetch(connection, listed, request, keys=(position,), bound=bound, size=size)
    return Page(items=[item_of(row) for row in rows], has_more=has_more)


def item_of(row: "Row[*tuple[Any, ...]]") -> StoredItem:
    """Returns the item of a row with the item columns."""
    return StoredItem(id=row.id, item=row.item)


def delete_unreferenced(connection: Connection, seqs: Sequence[int]) -> int:
    """Deletes those of these items that no conversation and no response contains; returns the freed
    bytes."""
    freed_bytes = 0
    for part in statement_parts(seqs):
        unlocked = select(items.c.seq).where(items.c.seq.in_(part)).order_by(items.c.seq)
        # A statement of its own locks them, so that the next one sees references added until then.
        connection.execute(unlocked.with_for_update()).all()
        orphaned = delete(items).where(
            items.c.seq.in_(part),
            ~exists().where(conversation_items.c.item_seq == items.c.seq),
            ~exists().where(response_items.c.item_seq == items.c.seq),
        )
        freed_bytes += sum(connection.scalars(orphaned.returning(items.c.size_bytes)))
    return freed_bytes


def _is_referenced(connection: Connection, seq: int) -> bool:
    """True if a response or conversation that the owner can see contains the item."""
    references = (
        select(responses.c.seq).join(response_items).where(response_items.c.item_seq == seq),
        select(conversations.c.seq)
        .join(conversation_items)
        .where(conversation_items.c.item_seq == seq),
    )
    return any(connection.execute(one.limit(1)).first() for one in references)


def _lock_items(connection: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Locks the items with these ids against deletion until the transaction ends, and returns their
    rows by id."""
    known: dict[str, Row[Any]] = {}
    for part in statement_parts(ids):
        query = select(items).where(items.c.id.in_(part))
        locked = query.order_by(items.c.seq).with_for_update(read=True, key_share=True)
        known |= {row.id: row for row in connection.execute(locked)}
    return known


def _find_excluded(
    connection: Connection, known: Mapping[str, Row[Any]], excluded: Select[tuple[int]]
) -> set[int]:
    """Returns the numbers of the known items that `excluded` selects."""
    seqs = [row.seq for row in known.values()]
    found: set[int] = set()
    for part in statement_parts(seqs):
        query = select(items.c.seq).where(items.c.seq.in_(part), items.c.seq.in_(excluded))
        found.update(connection.scalars(query))
    return found


def _reuse(
    waiting: dict[int, StoredItem],
    known: Mapping[str, Row[Any]],
    seqs: dict[int, int],
    excluded: set[int],
) -> None:
    """Moves the items that are stored unchanged from `waiting` to `seqs`."""
    used = excluded.union(seqs.values())
    for index, one in list(waiting.items()):
        row = known.get(one.id)
        if row is not None and row.seq not in used and row.item == dict(one.item):
            used.add(row.seq)
            seqs[index] = row.seq
            del waiting[index]


def _insert(
    connection: Connection, waiting: Mapping[int, StoredItem], taken: Collection[str]
) -> dict[int, int]:
    """Inserts the items, and returns the `seq`s by index of those that no other transaction
    inserted first."""
    indexes: dict[str, int] = {}
    for index, one in waiting.items():
        is_free = one.id not in taken and one.id not in indexes
        indexes[one.id if is_free else f"{one.id}_{uuid.uuid4().hex[:_SUFFIX_CHARACTERS]}"] = index
    if not indexes:
        return {}
    rows = [_row(id, waiting[indexes[id]]) for id in sorted(indexes)]  # an order prevents deadlocks
    insert = insert_into(connection, items).on_conflict_do_nothing()
    inserted = connection.execute(insert.returning(items.c.id, items.c.seq), rows)
    return {indexes[row.id]: int(row.seq) for row in inserted}


def _row(id: str, stored: StoredItem) -> dict[str, object]:
    item = encode({**stored.item, "id": id})
    return {"id": id, "item": item, "size_bytes": len(item)}
