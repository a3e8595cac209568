"""Responses as rows: SQL statements, each function one unit of work on a connection."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, Select, delete, insert, literal, select
from sqlalchemy.exc import IntegrityError

from llm_backend.json_types import JsonMapping
from llm_backend.store.conversations import conversation_rows, item_rows
from llm_backend.store.conversations.stored_conversation import StoredItem
from llm_backend.store.database.driver_errors import is_taken
from llm_backend.store.errors import Duplicate, Missing, ResponseNotInConversation, Unfinished
from llm_backend.store.json_text import encode
from llm_backend.store.keyset_pages import Page, PageRequest
from llm_backend.store.responses.stored_response import StoredResponse
from llm_backend.store.row_values import find_row
from llm_backend.store.statement_parts import statement_parts
from llm_backend.store.tables.conversations import items, response_items, responses

ACTIVE = ("queued", "in_progress")


def add(connection: Connection, response: StoredResponse) -> int:
    """Inserts the response with its items and returns its sequence number. If it has a conversation
    and `joins_conversation`, its items are appended there.

    Raises `Duplicate`, and `Missing` if the conversation was deleted meanwhile.
    """
    body = encode(dict(response.body))
    row = {
        "id": response.id,
        "created_at": response.created_at,
        "owner": response.owner,
        "model": response.model,
        "status": response.status,
        "body": body,
        "size_bytes": len(body),
        "previous_id": response.previous_id,
        "conversation_id": response.conversation_id,
    }
    try:
        statement = insert(responses).returning(responses.c.seq)
        seq = connection.execute(statement, row).scalar_one()
    except IntegrityError as error:
        if is_taken(error):
            raise Duplicate(response.id) from error
        raise
    conversation_id = response.conversation_id if joins_conversation(response.status) else None
    if conversation_id is not None:  # locked before its items, as in `delete_item`
        conversation_rows.lock(connection, conversation_id)
    add_items(connection, seq, response.input, is_output=False)
    add_items(connection, seq, response.output, start=len(response.input))
    if conversation_id is not None:
        added = [*response.input, *response.output]
        conversation_rows.add_items(connection, conversation_id, added)
    return int(seq)


def joins_conversation(status: str) -> bool:
    """True if the items of a response with this status belong in its conversation. A failed or
    cancelled response is retried, and would be in it twice."""
    return status in ("completed", "incomplete")


def add_items(
    connection: Connection,
    seq: int,
    added: Sequence[StoredItem],
    *,
    start: int = 0,
    is_output: bool = True,
) -> None:
    """Adds items to the response, from this position on."""
    already = select(response_items.c.item_seq).where(response_items.c.response_seq == seq)
    item_seqs = item_rows.add(connection, added, excluded=already)
    rows = [
        {
            "response_seq": seq,
            "position": position,
            "item_seq": item_seq,
            "is_output": is_output,
        }
        for position, item_seq in enumerate(item_seqs, start)
    ]
    if rows:
        connection.execute(insert(response_items), rows)


def input_items(connection: Connection, seq: int) -> list[StoredItem]:
    """All input items of a response, in order."""
    found = _input_of(seq).order_by(response_items.c.position)
    return [item_rows.item_of(row) for row in connection.execute(found)]


def get_body(connection: Connection, id: str) -> JsonMapping:
    """The response object as it was answered. Raises `Missing`."""
    found = select(responses.c.body).where(responses.c.id == id)
    row = find_row(connection, found, id)
    body: JsonMapping = row.body
    return body


def delete_responses(connection: Connection, seqs: Sequence[int]) -> int:
    """Deletes these responses, and their items that nothing else contains; returns the freed
    bytes."""
    freed_bytes = 0
    for part in statement_parts(seqs):
        referenced = select(response_items.c.item_seq).where(
            response_items.c.response_seq.in_(part)
        )
        item_seqs = list(connection.execute(referenced).scalars())
        these = delete(responses).where(responses.c.seq.in_(part))
        freed_bytes += sum(connection.scalars(these.returning(responses.c.size_bytes)))
        freed_bytes += item_rows.delete_unreferenced(connection, item_seqs)
    return freed_bytes


def context(connection: Connection, id: str) -> list[StoredItem]:
    """All items up to the end of this response: its own, after those of the responses that it
    continues or of its conversation. Raises `Missing` for any of these, `Unfinished`, and
    `ResponseNotInConversation` if its conversation does not contain it."""
    find_seq(connection, id)  # of this owner, as the responses that it continues
    first = select(
        responses.c.id,
        responses.c.status,
        responses.c.seq,
        responses.c.previous_id,
        responses.c.conversation_id,
        literal(0).label("age"),
    ).where(responses.c.id == id)
    chain = first.cte("chain", recursive=True)
    chain = chain.union_all(
        select(
            responses.c.id,
            responses.c.status,
            responses.c.seq,
            responses.c.previous_id,
            responses.c.conversation_id,
            (chain.c.age + 1).label("age"),
        ).where(responses.c.id == chain.c.previous_id)
    )
    links = connection.execute(select(chain)).all()
    for link in links:
        if link.status in ACTIVE:
            raise Unfinished(link.id)
    oldest = max(links, key=lambda link: link.age)
    if oldest.previous_id is not None:
        raise Missing(oldest.previous_id)
    earlier: list[StoredItem] = []
    if oldest.conversation_id is not None:  # which contains the items of `oldest`, too
        earlier = _items_until(connection, oldest.conversation_id, oldest.seq)
        if not earlier:
            raise ResponseNotInConversation(oldest.id, oldest.conversation_id)
    own = (
        select(items.c.id, items.c.item)
        .join(response_items, response_items.c.item_seq == items.c.seq)
        .join(chain, chain.c.seq == response_items.c.response_seq)
        .where(chain.c.conversation_id.is_(None))
        .order_by(chain.c.age.desc(), response_items.c.position)
    )
    return earlier + [item_rows.item_of(row) for row in connection.execute(own)]


def _items_until(connection: Connection, conversation_id: str, seq: int) -> list[StoredItem]:
    """Items of a conversation up to the last item of a response that it still contains."""
    own = select(response_items.c.item_seq).where(response_items.c.response_seq == seq)
    return conversation_rows.items_until(connection, conversation_id, own)


def find_input(connection: Connection, request: PageRequest, id: str) -> Page[StoredItem]:
    """A page of the input items. Raises `Missing`, `UnknownCursor`."""
    seq = find_seq(connection, id)
    position, find_position = response_items.c.position, partial(_position, connection, seq)
    return item_rows.find_page(connection, _input_of(seq), request, position, find_position)


def find_seq(connection: Connection, id: str) -> int:
    """The sequence number of a response's row. Raises `Missing`."""
    found = select(responses.c.seq).where(responses.c.id == id)
    return int(find_row(connection, found, id).seq)


def _input_of(seq: int) -> Select[tuple[str, object]]:
    return (
        select(items.c.id, items.c.item)
        .join(response_items, response_items.c.item_seq == items.c.seq)
        .where(response_items.c.response_seq == seq, ~response_items.c.is_output)
    )


def _position(connection: Connection, seq: int, item_id: str) -> int:
    found = (
        select(response_items.c.position)
        .join(items, items.c.seq == response_items.c.item_seq)
        .where(response_items.c.response_seq == seq, items.c.id == item_id)
    )
    return int(find_row(connection, found, item_id).position)
