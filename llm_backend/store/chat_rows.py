"""Stored chats as rows: the statements, each function one unit of work on a connection."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, exists, insert, select
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError

from llm_backend.store.bodies import encoded, is_text
from llm_backend.store.errors import Duplicate, Missing
from llm_backend.store.named import row_named
from llm_backend.store.pages import Page, PageRequest, end_of, fetch
from llm_backend.store.stored_chat import ChatStatus, NewChat, StoredChat, StoredMessage
from llm_backend.store.tables import chat_messages, chat_metadata, chats
from llm_backend.store.translation import is_taken

__all__ = ["add_all", "add_free", "delete", "find", "find_messages", "get", "update_metadata"]

# Built once: the statements of every answer. A part finds its chat by the chat's id: nothing has to
# come back from the database before the parts go there.
_INSERT_CHATS = insert(chats)
_SEQ = select(chats.c.seq).where(chats.c.id == bindparam("chat_id")).scalar_subquery()
_INSERT_MESSAGES = insert(chat_messages).values(chat_seq=_SEQ)
_INSERT_METADATA = insert(chat_metadata)

_PLACE = select(chats.c.created_at, chats.c.seq)
_HELD = _PLACE.with_for_update()  # until the end of the transaction nobody else changes the chat


def add_all(connection: Connection, added: Sequence[NewChat]) -> None:
    """Insert chats and their parts. Raises `Duplicate` where the only one there is has an id that
    is taken."""
    said = [[encoded(dict(message)) for message in one.messages] for one in added]
    try:
        connection.execute(_INSERT_CHATS, [_row(*one) for one in zip(added, said, strict=True)])
    except IntegrityError as error:
        if len(added) == 1 and is_taken(error):
            raise Duplicate(added[0].chat.id) from error
        raise
    rows = [
        {"chat_id": one.chat.id, "position": position, "message": message}
        for one, messages in zip(added, said, strict=True)
        for position, message in enumerate(messages)
    ]
    if rows:
        connection.execute(_INSERT_MESSAGES, rows)
    for chat in (one.chat for one in added if one.chat.metadata):
        created_at, seq = _place(connection, chat.id)
        _write_metadata(connection, seq, created_at, chat.metadata)


def add_free(connection: Connection, added: Sequence[NewChat]) -> list[str]:
    """Insert chats and their parts, but for those whose id is taken, by a stored one or by one
    before; gives these ids."""
    ids = {one.chat.id for one in added}
    seen = set(connection.scalars(select(chats.c.id).where(chats.c.id.in_(ids))))
    free: list[NewChat] = []
    taken: list[str] = []
    for one in added:
        if one.chat.id in seen:
            taken.append(one.chat.id)
        else:
            seen.add(one.chat.id)
            free.append(one)
    if free:
        add_all(connection, free)
    return taken


def _row(added: NewChat, messages: Sequence[str]) -> dict[str, Any]:
    chat = added.chat
    request, response = encoded(dict(chat.request)), encoded(dict(chat.response))
    return {
        "id": chat.id,
        "created_at": chat.created_at,
        "owner": chat.owner,
        "model": chat.model,
        "status": chat.status.value,
        "request": request,
        "response": response,
        "size_bytes": len(request) + len(response) + sum(map(len, messages)),
    }


def _write_metadata(
    connection: Connection, seq: int, created_at: int, metadata: Mapping[str, str]
) -> None:
    if metadata:
        rows = [
            {"chat_seq": seq, "created_at": created_at, "key": key, "value": value}
            for key, value in metadata.items()
        ]
        connection.execute(_INSERT_METADATA, rows)


def get(connection: Connection, id: str) -> StoredChat:
    """The chat with this id. Raises `Missing`."""
    row = row_named(connection, select(chats).where(chats.c.id == id), id)
    return _chats(connection, [row])[0]


def update_metadata(connection: Connection, id: str, metadata: Mapping[str, str]) -> StoredChat:
    """Put `metadata` in place of the chat's; the chat as it is then. Raises `Missing`."""
    created_at, seq = _place(connection, id, _HELD)
    connection.execute(delete_from(chat_metadata).where(chat_metadata.c.chat_seq == seq))
    _write_metadata(connection, seq, created_at, metadata)
    return get(connection, id)


def delete(connection: Connection, id: str) -> None:
    """Delete the chat; its parts go with it. Raises `Missing`."""
    _, seq = _place(connection, id, _HELD)
    connection.execute(delete_from(chats).where(chats.c.seq == seq))


def find(
    connection: Connection,
    request: PageRequest,
    model: str | None,
    metadata: Mapping[str, str],
) -> Page[StoredChat]:
    """A page of the chats of `model` with all pairs of `metadata`. Raises `UnknownCursor`."""
    end = end_of(request, lambda id: _place(connection, id))
    if not all(map(is_text, (model or "", *metadata, *metadata.values()))):
        return Page(items=(), has_more=False)
    listing, keys = _listing(model, metadata)
    rows, has_more = fetch(connection, listing, request, keys=keys, end=end)
    return Page(items=_chats(connection, rows), has_more=has_more)


def find_messages(connection: Connection, request: PageRequest, id: str) -> Page[StoredMessage]:
    """A page of the messages of a chat. Raises `Missing`, `UnknownCursor`."""
    _, seq = _place(connection, id)
    end = end_of(request, lambda message_id: _message_place(connection, seq, id, message_id))
    of_chat = select(chat_messages).where(chat_messages.c.chat_seq == seq)
    keys = (chat_messages.c.position,)
    rows, has_more = fetch(connection, of_chat, request, keys=keys, end=end)
    items = [StoredMessage(id=f"{id}-{row.position}", message=row.message) for row in rows]
    return Page(items=items, has_more=has_more)


def _listing(
    model: str | None, metadata: Mapping[str, str]
) -> tuple[Select[Any], tuple[ColumnElement[Any], ...]]:
    """The statement of a filtered list, and the keys of the index that walks it in order."""
    statement = select(chats)
    keys: tuple[ColumnElement[Any], ...] = (chats.c.created_at, chats.c.seq)
    if model is not None:
        statement = statement.where(chats.c.model == model)
    for number, (key, value) in enumerate(metadata.items()):
        pair = chat_metadata.alias()
        matches = (pair.c.chat_seq == chats.c.seq) & (pair.c.key == key) & (pair.c.value == value)
        if number:
            statement = statement.where(exists().where(matches))
        else:
            statement = statement.join(pair, matches)
            keys = (pair.c.created_at, pair.c.chat_seq)
    return statement, keys


def _place(
    connection: Connection, id: str, places: Select[tuple[int, int]] = _PLACE
) -> tuple[int, int]:
    """Where a chat stands in the order of all: (created_at, seq)."""
    row = row_named(connection, places.where(chats.c.id == id), id)
    return row.created_at, row.seq


def _message_place(connection: Connection, seq: int, chat_id: str, id: str) -> tuple[int]:
    place = re.fullmatch(re.escape(chat_id) + r"-(0|[1-9][0-9]{0,8})", id)
    position = int(place[1]) if place else None
    this = (chat_messages.c.chat_seq == seq) & (chat_messages.c.position == position)
    if position is None or not connection.scalar(select(exists().where(this))):
        raise Missing(id)
    return (position,)


def _chats(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[StoredChat]:
    metadata = _metadata(connection, [row.seq for row in rows])
    return [
        StoredChat(
            id=row.id,
            created_at=row.created_at,
            model=row.model,
            request=row.request,
            response=row.response,
            metadata=metadata[row.seq],
            status=ChatStatus(row.status),
            owner=row.owner,
        )
        for row in rows
    ]


def _metadata(connection: Connection, seqs: Sequence[int]) -> Mapping[int, Mapping[str, str]]:
    found: defaultdict[int, dict[str, str]] = defaultdict(dict)
    pairs = select(chat_metadata).where(chat_metadata.c.chat_seq.in_(seqs))
    for pair in connection.execute(pairs.order_by(chat_metadata.c.chat_seq, chat_metadata.c.key)):
        found[pair.chat_seq][pair.key] = pair.value
    return found
