"""Deletion of old rows and of the oldest history, a limited number in one transaction.

A response is kept as long as a response that continues it, so that a thread is complete when its
client returns to it. Running work, and vector stores that have not expired, are left alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import ColumnElement, Connection, Table, exists, func, select
from sqlalchemy import delete as delete_from

from llm_backend.store.conversations import conversation_rows
from llm_backend.store.files import file_rows
from llm_backend.store.responses import response_rows, thread_rows
from llm_backend.store.tables.batches import BATCH_ENDS, batches
from llm_backend.store.tables.chats import chats
from llm_backend.store.tables.conversations import conversations, items, responses
from llm_backend.store.vector_stores import store_rows

ROWS_PER_TRANSACTION = 100  # of each kind

_HISTORY = (chats, responses, items)
_later = responses.alias("later")
_is_last = ~exists().where(_later.c.previous_id == responses.c.id)
_has_ended = responses.c.status.not_in(response_rows.ACTIVE)


def delete_chats(connection: Connection, before: int) -> int:
    """Deletes some chats from before this time; returns their number."""
    _, seqs = _oldest(connection, chats, chats.c.created_at <= before)
    _delete(connection, chats, seqs)
    return len(seqs)


def delete_responses(connection: Connection, before: int) -> int:
    """Deletes some ended responses from before this time that no response continues; returns their
    number."""
    is_deletable = (responses.c.created_at <= before) & _is_last & _has_ended
    _, seqs = _oldest(connection, responses, is_deletable)
    response_rows.delete_responses(connection, seqs)
    return len(seqs)


def delete_conversations(connection: Connection, before: int) -> int:
    """Deletes some conversations that have not changed since this time; returns their number."""
    unused = conversations.c.changed_at <= before
    _, seqs = _oldest(connection, conversations, unused, conversations.c.changed_at)
    conversation_rows.delete_conversations(connection, seqs)
    return len(seqs)


def delete_batches(connection: Connection, before: int) -> int:
    """Deletes some ended batches from before this time; returns their number."""
    ended = (batches.c.created_at <= before) & batches.c.status.in_(BATCH_ENDS)
    _, seqs = _oldest(connection, batches, ended)
    _delete(connection, batches, seqs)
    return len(seqs)


def delete_vector_stores(connection: Connection, before: int) -> int:
    """Deletes some vector stores that expired before this time; returns their number."""
    return store_rows.delete_emptied(connection, before, limit=ROWS_PER_TRANSACTION)


def delete_files(connection: Connection, before: int) -> int:
    """Deletes some files from before this time that nothing uses; returns their number."""
    return file_rows.delete_old(connection, before, limit=ROWS_PER_TRANSACTION)


class DeleteOld(Protocol):
    """Deletes some rows of one kind from before a time; returns their number."""

    def __call__(self, connection: Connection, before: int) -> int: ...


DELETE_OLD: Sequence[DeleteOld] = (
    delete_chats,
    delete_responses,
    delete_conversations,
    delete_batches,  # before the files, which their batches keep alive
    delete_vector_stores,
    delete_files,
)
"""Each is a unit of work of its own, so that the locks of one do not block the others."""


def history_bytes(connection: Connection) -> int:
    """Bytes of all chats, responses, conversations and their items."""
    sums = [select(func.coalesce(func.sum(table.c.size_bytes), 0)) for table in _HISTORY]
    return sum(int(connection.scalar(one) or 0) for one in sums)


def delete_oldest(connection: Connection, excess_bytes: int) -> int | None:
    """Deletes some of the oldest chats, threads of responses and conversations, no more than needed
    to free this many bytes. Returns the freed bytes, or None if there is nothing to delete.

    A thread is as old as its last response, and is deleted as a whole.
    """
    oldest = sorted([*_old_chats(connection), *_threads(connection), *_conversations(connection)])
    if not oldest:
        return None
    deleted, size_bytes = [], 0
    for one in oldest[:ROWS_PER_TRANSACTION]:
        deleted.append(one)
        size_bytes += one.size_bytes
        if size_bytes >= excess_bytes:
            break
    return sum(_DELETE_ROWS[one.name](connection, one.seqs) for one in deleted)


class _DeletionCandidate(NamedTuple):
    """Rows of one table that are deleted together, with an upper bound of their bytes. The oldest
    candidate sorts first."""

    at: int
    name: str
    seqs: Sequence[int]
    size_bytes: int


def _old_chats(connection: Connection) -> Iterator[_DeletionCandidate]:
    times, seqs = _oldest(connection, chats, chats.c.seq > 0)
    found = select(chats.c.seq, chats.c.size_bytes).where(chats.c.seq.in_(seqs))
    sizes = {row.seq: row.size_bytes for row in connection.execute(found)}
    for at, seq in zip(times, seqs, strict=True):
        yield _DeletionCandidate(at, "chats", [seq], sizes[seq])


def _threads(connection: Connection) -> Iterator[_DeletionCandidate]:
    times, seqs = _oldest(connection, responses, _is_last & _has_ended)
    threads = thread_rows.ending_with(connection, seqs)
    for at, seq in zip(times, seqs, strict=True):
        yield _DeletionCandidate(at, "responses", threads[seq].seqs, threads[seq].size_bytes)


def _conversations(connection: Connection) -> Iterator[_DeletionCandidate]:
    age = conversations.c.changed_at
    times, seqs = _oldest(connection, conversations, conversations.c.seq > 0, age)
    sizes = conversation_rows.sizes(connection, seqs)
    for at, seq in zip(times, seqs, strict=True):
        yield _DeletionCandidate(at, "conversations", [seq], sizes.get(seq, 0))


def _oldest(
    connection: Connection,
    table: Table,
    condition: ColumnElement[bool],
    age: ColumnElement[int] | None = None,
) -> tuple[Sequence[int], Sequence[int]]:
    """Locks the oldest rows that no other transaction has locked; returns their times and `seq`."""
    age = table.c.created_at if age is None else age
    by_age = select(age, table.c.seq).where(condition).order_by(age, table.c.seq)
    oldest = by_age.limit(ROWS_PER_TRANSACTION)
    rows = connection.execute(oldest.with_for_update(of=table, skip_locked=True)).all()
    return [row[0] for row in rows], [row[1] for row in rows]


def _delete(connection: Connection, table: Table, seqs: Sequence[int]) -> int:
    if not seqs:
        return 0
    deletion = delete_from(table).where(table.c.seq.in_(seqs))
    if "size_bytes" not in table.c:
        connection.execute(deletion)
        return 0
    return sum(connection.scalars(deletion.returning(table.c.size_bytes)))


_DELETE_ROWS: Mapping[str, Callable[[Connection, Sequence[int]], int]] = {
    "chats": lambda connection, seqs: _delete(connection, chats, seqs),
    "responses": response_rows.delete_responses,
    "conversations": conversation_rows.delete_conversations,
}
