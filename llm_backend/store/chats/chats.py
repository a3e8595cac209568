"""Store of chats: requests with their completions, found by id, model and metadata."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, insert, select
from sqlalchemy import delete as delete_from

from llm_backend.json_types import JsonMapping
from llm_backend.store.chats.stored_chat import (
    ChatStatus,
    NewChat,
    StoredChat,
    StoredMessage,
)
from llm_backend.store.chats.word_index import index_again
from llm_backend.store.database.bulk_insert import insert_rows, insert_unless_taken
from llm_backend.store.database.database import Database
from llm_backend.store.database.ownership import as_owner
from llm_backend.store.errors import Duplicate, MetadataChanged, Missing
from llm_backend.store.json_text import encode
from llm_backend.store.keyset_pages import Order, Page, PageRequest, cursor_keys, fetch
from llm_backend.store.row_values import find_row, value_from
from llm_backend.store.tables.chats import chat_messages, chat_metadata, chats
from llm_backend.store.text_checks import check_metadata, check_texts, is_text

_INSERT_METADATA = insert(chat_metadata)

_SORT_KEYS = select(chats.c.created_at, chats.c.seq)
_SORT_KEYS_LOCKED = _SORT_KEYS.with_for_update()


class ChatStore:
    """The stored chats of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, chat: StoredChat, messages: Sequence[JsonMapping]) -> None:
        """Stores a chat with its input messages; durable on return.

        Raises `Duplicate`, and `Unstorable` for metadata over OpenAI's bounds or a text that no
        column can hold; bodies may hold any text.
        """
        _check(chat)
        new = NewChat(chat=chat, messages=messages)
        await self._database.insert(_add, new)

    async def add_unless_taken(self, added: Sequence[NewChat]) -> list[str]:
        """Stores chats in one transaction, at little more than the cost of one; durable on
        return. Omits chats whose id is taken, and returns their ids. Each chat belongs to the owner
        that it names, not to the current one. Raises `Unstorable` as `add` does; then none is
        stored."""
        for one in added:
            _check(one.chat)
        with as_owner(None):
            return await self._database.insert(_add_unless_taken, added)

    async def get(self, id: str) -> StoredChat:
        """Returns the chat with this id. Raises `Missing`."""
        return await self._database.read(_get, id)

    async def list(
        self,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
    ) -> Page[StoredChat]:
        """Returns a page of the chats of `model` with all pairs of `metadata`, by creation time.

        Chats of the same second are in the order in which they were stored. Raises `UnknownCursor`
        if no chat has the id `after`.
        """
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(_find, request, model, metadata or {})

    async def messages(
        self, id: str, *, after: str | None = None, limit: int = 20, order: Order = "asc"
    ) -> Page[StoredMessage]:
        """Returns a page of the input messages of a chat. Raises `Missing`, `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(_find_messages, request, id)

    async def update_metadata(
        self, id: str, metadata: Mapping[str, str], expected: Mapping[str, str] | None = None
    ) -> StoredChat:
        """Replaces the metadata of the chat, and returns the chat.

        Raises `Missing`, `MetadataChanged` unless the chat has all pairs of `expected`, and
        `Unstorable` as `add` does.
        """
        check_metadata(metadata)
        return await self._database.write(_update_metadata, id, metadata, expected or {})

    async def delete(self, id: str) -> None:
        """Deletes the chat with its messages and its metadata. Raises `Missing`."""
        await self._database.write(_delete, id)


def _check(chat: StoredChat) -> None:
    check_texts(chat.id, chat.model, chat.owner or "")
    check_metadata(chat.metadata)


def _add(connection: Connection, new: NewChat) -> None:
    if _add_unless_taken(connection, [new]):
        raise Duplicate(new.chat.id)


def _add_unless_taken(connection: Connection, added: Sequence[NewChat]) -> list[str]:
    """Inserts chats with their messages and metadata, except those whose id is taken by a stored
    chat or by an earlier one of `added`; returns the ids that were left out.

    The number of statements does not depend on the number of chats.
    """
    first: dict[str, NewChat] = {}
    for one in added:
        first.setdefault(one.chat.id, one)
    messages = {id: [encode(dict(each)) for each in one.messages] for id, one in first.items()}
    rows = [_row(one.chat, messages[id]) for id, one in first.items()]
    seqs = insert_unless_taken(connection, chats, rows)
    _insert_parts(
        connection, [(seqs[id], first[id].chat, messages[id]) for id in first if id in seqs]
    )
    return [one.chat.id for one in added if seqs.pop(one.chat.id, None) is None]


def _insert_parts(
    connection: Connection, inserted: Sequence[tuple[int, StoredChat, Sequence[str]]]
) -> None:
    messages = [
        {"chat_seq": seq, "position": position, "message": message}
        for seq, _, messages in inserted
        for position, message in enumerate(messages)
    ]
    insert_rows(connection, chat_messages, messages)
    metadata = [
        row for seq, chat, _ in inserted for row in _pairs(seq, chat.created_at, chat.metadata)
    ]
    if metadata:
        connection.execute(_INSERT_METADATA, metadata)


def _row(chat: StoredChat, messages: Sequence[str]) -> dict[str, object]:
    request, response = encode(dict(chat.request)), encode(dict(chat.response))
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


def _pairs(seq: int, created_at: int, metadata: Mapping[str, str]) -> list[dict[str, str | int]]:
    return [
        {"chat_seq": seq, "created_at": created_at, "key": key, "value": value}
        for key, value in metadata.items()
    ]


def _get(connection: Connection, id: str) -> StoredChat:
    row = find_row(connection, select(chats).where(chats.c.id == id), id)
    return _chats(connection, [row])[0]


def _update_metadata(
    connection: Connection, id: str, metadata: Mapping[str, str], expected: Mapping[str, str]
) -> StoredChat:
    created_at, seq = sort_keys(connection, id, _SORT_KEYS_LOCKED)
    if expected and not expected.items() <= _metadata(connection, [seq])[seq].items():
        raise MetadataChanged(id)
    connection.execute(delete_from(chat_metadata).where(chat_metadata.c.chat_seq == seq))
    if metadata:
        connection.execute(_INSERT_METADATA, _pairs(seq, created_at, metadata))
    index_again(connection, seq)
    return _get(connection, id)


def _delete(connection: Connection, id: str) -> None:
    _, seq = sort_keys(connection, id, _SORT_KEYS_LOCKED)
    connection.execute(delete_from(chats).where(chats.c.seq == seq))


def _find(
    connection: Connection,
    request: PageRequest,
    model: str | None,
    metadata: Mapping[str, str],
) -> Page[StoredChat]:
    bound = cursor_keys(request, lambda id: sort_keys(connection, id))
    if not all(map(is_text, (model or "", *metadata, *metadata.values()))):
        return Page(items=(), has_more=False)
    listing, keys = _listing(model, metadata)
    rows, has_more = fetch(connection, listing, request, keys=keys, bound=bound)
    return Page(items=_chats(connection, rows), has_more=has_more)


def _find_messages(connection: Connection, request: PageRequest, id: str) -> Page[StoredMessage]:
    _, seq = sort_keys(connection, id)
    bound = cursor_keys(
        request, lambda message_id: _message_sort_keys(connection, seq, id, message_id)
    )
    of_chat = select(chat_messages).where(chat_messages.c.chat_seq == seq)
    keys = (chat_messages.c.position,)
    rows, has_more = fetch(connection, of_chat, request, keys=keys, bound=bound)
    items = [StoredMessage(id=f"{id}-{row.position}", message=row.message) for row in rows]
    return Page(items=items, has_more=has_more)


def _listing(
    model: str | None, metadata: Mapping[str, str]
) -> tuple[Select[Any], tuple[ColumnElement[Any], ...]]:
    """Returns the statement of a filtered list, and the columns of the index that orders it."""
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


def sort_keys(
    connection: Connection, id: str, statement: Select[tuple[int, int]] = _SORT_KEYS
) -> tuple[int, int]:
    """Returns the sort keys of a chat in the list of all chats: (created_at, seq)."""
    row = find_row(connection, statement.where(chats.c.id == id), id)
    return row.created_at, row.seq


def _message_sort_keys(connection: Connection, seq: int, chat_id: str, id: str) -> tuple[int]:
    match = re.fullmatch(re.escape(chat_id) + r"-(0|[1-9][0-9]{0,8})", id)
    position = int(match[1]) if match else None
    is_message = (chat_messages.c.chat_seq == seq) & (chat_messages.c.position == position)
    if position is None or not connection.scalar(select(exists().where(is_message))):
        raise Missing(id)
    return (position,)


def _chats(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[StoredChat]:
    metadata = _metadata(connection, [row.seq for row in rows])
    return [
        value_from(row, StoredChat, metadata=metadata[row.seq], status=ChatStatus(row.status))
        for row in rows
    ]


def _metadata(connection: Connection, seqs: Sequence[int]) -> Mapping[int, Mapping[str, str]]:
    found: defaultdict[int, dict[str, str]] = defaultdict(dict)
    pairs = select(chat_metadata).where(chat_metadata.c.chat_seq.in_(seqs))
    for pair in connection.execute(pairs.order_by(chat_metadata.c.chat_seq, chat_metadata.c.key)):
        found[pair.chat_seq][pair.key] = pair.value
    return found
