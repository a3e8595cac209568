"""Detached chats in progress, of all servers that share a database: each is leased by the process
that writes its answer."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, select, update

from llm_backend.json_types import JsonMapping
from llm_backend.store.database.database import Database
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.row_values import row_from, value_from
from llm_backend.store.tables.detached_chats import detached_chats


@dataclass(frozen=True, kw_only=True)
class LeasedChat:
    """A detached chat that a process of a server answers; other servers read its `content`."""

    project_id: str
    id: str
    server: str
    holder: str
    until_at: int  # unix seconds: the end of the lease
    content: JsonMapping


class DetachedChatLeases:
    """The detached chats of a database. Times are in unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, chat: LeasedChat, *, now: int) -> bool:
        """Lease a chat; False if its id is leased. Of concurrent calls, one succeeds."""
        return await self._database.write(_add, chat=chat, now=now)

    async def remove(self, chat: LeasedChat) -> None:
        """Removes a chat, unless it has another holder by now."""
        await self._database.write(_remove, chat=chat)

    async def remove_all(self, holder: str) -> None:
        """Removes all chats of a holder."""
        await self._database.write(_remove_all, holder=holder)

    async def renew(self, holder: str, *, until: int) -> None:
        """Extends all leases of the holder to `until`."""
        await self._database.write(_renew, holder=holder, until=until)

    async def find_cancelled(self, holder: str) -> Collection[tuple[str, str]]:
        """Project and id of the cancelled chats of a holder."""
        return await self._database.read(_find_cancelled, holder=holder)

    async def list(self, project_id: str, *, other_than: str, now: int) -> Sequence[LeasedChat]:
        """The chats of a project at other servers than `other_than`."""
        return await self._database.read(
            _list, project_id=project_id, other_than=other_than, now=now
        )

    async def get(self, id: str, project_id: str, *, other_than: str) -> LeasedChat | None:
        """A chat at another server than `other_than`, even if its lease has expired; None if there
        is none."""
        return await self._database.read(_get, id=id, project_id=project_id, other_than=other_than)

    async def cancel(self, chat: LeasedChat) -> None:
        """Asks the holder to end the chat."""
        await self._database.write(_cancel, chat=chat)

    async def expire(self) -> None:
        """Deletes the chats whose leases have expired."""
        await self._database.write(_delete_expired, now=int(time.time()))


_COLUMNS = detached_chats.c


def _add(connection: Connection, chat: LeasedChat, now: int) -> bool:
    row = row_from(chat, detached_chats, is_cancelled=False)
    insert = insert_into(connection, detached_chats).values(row)
    replaced = insert.on_conflict_do_update(
        index_elements=["project_id", "id"], set_=row, where=_COLUMNS.until_at <= now
    )
    return connection.execute(replaced).rowcount == 1


def _remove(connection: Connection, chat: LeasedChat) -> None:
    connection.execute(delete(detached_chats).where(_is_chat(chat), _COLUMNS.holder == chat.holder))


def _remove_all(connection: Connection, holder: str) -> None:
    connection.execute(delete(detached_chats).where(_COLUMNS.holder == holder))


def _renew(connection: Connection, holder: str, until: int) -> None:
    statement = update(detached_chats).where(_COLUMNS.holder == holder)
    connection.execute(statement.values(until_at=until))


def _find_cancelled(connection: Connection, holder: str) -> Collection[tuple[str, str]]:
    query = select(_COLUMNS.project_id, _COLUMNS.id)
    of_holder = query.where(_COLUMNS.holder == holder, _COLUMNS.is_cancelled)
    return {(row.project_id, row.id) for row in connection.execute(of_holder)}


def _list(
    connection: Connection, project_id: str, other_than: str, now: int
) -> Sequence[LeasedChat]:
    query = select(detached_chats).where(
        _COLUMNS.project_id == project_id,
        _COLUMNS.server != other_than,
        _COLUMNS.until_at > now,
    )
    return [value_from(row, LeasedChat) for row in connection.execute(query)]


def _get(connection: Connection, id: str, project_id: str, other_than: str) -> LeasedChat | None:
    query = select(detached_chats).where(
        _COLUMNS.project_id == project_id, _COLUMNS.id == id, _COLUMNS.server != other_than
    )
    row = connection.execute(query).first()
    return None if row is None else value_from(row, LeasedChat)


def _cancel(connection: Connection, chat: LeasedChat) -> None:
    connection.execute(update(detached_chats).where(_is_chat(chat)).values(is_cancelled=True))


def _delete_expired(connection: Connection, now: int) -> None:
    connection.execute(delete(detached_chats).where(_COLUMNS.until_at <= now))


def _is_chat(chat: LeasedChat) -> ColumnElement[bool]:
    return (_COLUMNS.project_id == chat.project_id) & (_COLUMNS.id == chat.id)
