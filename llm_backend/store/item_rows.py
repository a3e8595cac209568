"""Items as rows: putting them in, finding them by id, and forgetting those that nobody holds."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, select

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
from llm_backend.store.upsert import insert_into

__all__ = ["add", "forget_unheld", "get", "item_of"]

_SUFFIX = 8  # characters that tell apart items that came with the same id
_AT_ONCE = 500  # parameters of one statement, below what either database takes


def add(
    connection: Connection, stored: Sequence[StoredItem], *, held: Select[tuple[int]]
) -> list[int]:
    """Insert items that are not there yet; the sequence numbers of all, none of which `held`
    selects: the items that their holder has already.

    Clients send back what they were given, ids and all, and not always as it was, or twice: an item
    whose id another one has, or that its holder has, gets an id of its own.
    """
    seqs: dict[int, int] = {}
    while len(seqs) < len(stored):  # again, where another process was first with an id
        waiting = {place: one for place, one in enumerate(stored) if place not in seqs}
        known = _known(connection, [one.id for one in waiting.values()])
        _reuse(waiting, known, seqs, _those_of(connection, known, held))
        seqs |= _insert(connection, waiting, taken=known.keys())
    return [seqs[place] for place in range(len(stored))]


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
        these = select(items.c.seq).where(items.c.seq.in_(part)).order_by(items.c.seq)
        connection.execute(these.with_for_update()).all()  # whoever holds one by then is seen
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


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The items with these ids; nobody deletes them until the end of the transaction."""
    known: dict[str, Row[Any]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = select(items).where(items.c.id.in_(ids[start : start + _AT_ONCE]))
        locked = part.order_by(items.c.seq).with_for_update(read=True, key_share=True)
        known |= {row.id: row for row in connection.execute(locked)}
    return known


def _those_of(
    connection: Connection, known: Mapping[str, Row[Any]], held: Select[tuple[int]]
) -> set[int]:
    """The numbers of known items that `held` selects."""
    seqs = [row.seq for row in known.values()]
    found: set[int] = set()
    for start in range(0, len(seqs), _AT_ONCE):
        part = items.c.seq.in_(seqs[start : start + _AT_ONCE])
        found.update(connection.scalars(select(items.c.seq).where(part, items.c.seq.in_(held))))
    return found


def _reuse(
    waiting: dict[int, StoredItem],
    known: Mapping[str, Row[Any]],
    seqs: dict[int, int],
    held: set[int],
) -> None:
    """Take items that are known as they are out of those that wait, into `seqs`."""
    used = held.union(seqs.values())
    for place, one in list(waiting.items()):
        row = known.get(one.id)
        if row is not None and row.seq not in used and row.item == dict(one.item):
            used.add(row.seq)
            seqs[place] = row.seq
            del waiting[place]


def _insert(
    connection: Connection, waiting: Mapping[int, StoredItem], taken: Collection[str]
) -> dict[int, int]:
    """The numbers of those that nobody else has inserted meanwhile."""
    places: dict[str, int] = {}
    for place, one in waiting.items():
        is_free = one.id not in taken and one.id not in places
        places[one.id if is_free else f"{one.id}_{uuid.uuid4().hex[:_SUFFIX]}"] = place
    if not places:
        return {}
    rows = [_row(id, waiting[places[id]]) for id in sorted(places)]  # one order of locks for all
    insert = insert_into(connection, items).on_conflict_do_nothing()
    inserted = connection.execute(insert.returning(items.c.id, items.c.seq), rows)
    return {places[row.id]: int(row.seq) for row in inserted}


def _row(id: str, stored: StoredItem) -> dict[str, object]:
    item = encoded({**stored.item, "id": id})
    return {"id": id, "item": item, "size_bytes": len(item)}
