"""What is kept too long, or is too much: forgotten oldest first, some of it in one transaction.

A response is kept as long as one that goes on from it: whoever comes back to a thread finds all of
it. Nothing is taken from work that has not ended, or from a vector store whose time is not over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import ColumnElement, Connection, Table, exists, func, select
from sqlalchemy import delete as delete_from

from llm_backend.store import conversation_rows, file_rows, response_rows, thread_rows
from llm_backend.store.batches.tables import BATCH_ENDS, batches
from llm_backend.store.tables import chats, conversations, items, responses
from llm_backend.store.vector_stores import store_rows

__all__ = ["FORGET_OLD", "SOME", "forget_files", "forget_oldest", "history_bytes"]

SOME = 100  # rows of each kind in one transaction

_HISTORY = (chats, responses, items)
_later = responses.alias("later")
_is_last = ~exists().where(_later.c.previous_id == responses.c.id)
_has_ended = responses.c.status.not_in(response_rows.ACTIVE)


def forget_chats(connection: Connection, before: int, now: int) -> int:
    """Forget some that are from before; how many."""
    _, old = _oldest(connection, chats, chats.c.created_at <= before)
    _delete(connection, chats, old)
    return len(old)


def forget_responses(connection: Connection, before: int, now: int) -> int:
    """Forget some that are from before, and that nothing goes on from; how many."""
    last = (responses.c.created_at <= before) & _is_last & _has_ended
    _, old = _oldest(connection, responses, last)
    response_rows.forget_some(connection, old)
    return len(old)


def forget_conversations(connection: Connection, before: int, now: int) -> int:
    """Forget some that nobody has added to since; how many."""
    unused = conversations.c.changed_at <= before
    _, old = _oldest(connection, conversations, unused, conversations.c.changed_at)
    conversation_rows.forget_some(connection, old)
    return len(old)


def forget_batches(connection: Connection, before: int, now: int) -> int:
    """Forget some that are from before, and have ended; how many."""
    ended = (batches.c.created_at <= before) & batches.c.status.in_(BATCH_ENDS)
    _, old = _oldest(connection, batches, ended)
    _delete(connection, batches, old)
    return len(old)


def forget_vector_stores(connection: Connection, before: int, now: int) -> int:
    """Forget some whose time was over before; how many."""
    return store_rows.forget_emptied(connection, before, limit=SOME)


def forget_files(connection: Connection, before: int, now: int) -> int:
    """Forget some that are from before, and that nothing uses; how many."""
    return file_rows.forget_old(connection, before, now, limit=SOME)


class Forget(Protocol):
    """Forgets some of one kind from before; how many."""

    def __call__(self, connection: Connection, before: int, now: int) -> int: ...


FORGET_OLD: Sequence[Forget] = (
    forget_chats,
    forget_responses,
    forget_conversations,
    forget_batches,  # before the files that they have read
    forget_vector_stores,
    forget_files,
)
"""Each a unit of work of its own: what one holds keeps nobody from what another does."""


def history_bytes(connection: Connection) -> int:
    """How much chats, responses and conversations take together."""
    sums = [select(func.coalesce(func.sum(table.c.size_bytes), 0)) for table in _HISTORY]
    return sum(int(connection.scalar(one) or 0) for one in sums)


def forget_oldest(connection: Connection, excess_bytes: int) -> int | None:
    """Forget some of the oldest chats, threads of responses and conversations, no more than it
    takes to free so many bytes; the bytes that were freed, None where there is nothing to forget.

    A thread is as old as its last response, and goes as a whole.
    """
    oldest = sorted([*_old_chats(connection), *_threads(connection), *_conversations(connection)])
    if not oldest:
        return None
    enough, size_bytes = [], 0
    for one in oldest[:SOME]:
        enough.append(one)
        size_bytes += one.size_bytes
        if size_bytes >= excess_bytes:
            break
    return sum(_FORGET[one.name](connection, one.seqs) for one in enough)


class _Forgettable(NamedTuple):
    """What goes at once: rows of one table, and what they take at most. The oldest sorts first."""

    at: int
    name: str
    seqs: Sequence[int]
    size_bytes: int


def _old_chats(connection: Connection) -> Iterator[_Forgettable]:
    times, seqs = _oldest(connection, chats, chats.c.seq > 0)
    found = select(chats.c.seq, chats.c.size_bytes).where(chats.c.seq.in_(seqs))
    sizes = {row.seq: row.size_bytes for row in connection.execute(found)}
    for at, seq in zip(times, seqs, strict=True):
        yield _Forgettable(at, "chats", [seq], sizes[seq])


def _threads(connection: Connection) -> Iterator[_Forgettable]:
    times, seqs = _oldest(connection, responses, _is_last & _has_ended)
    threads = thread_rows.ending_with(connection, seqs)
    for at, seq in zip(times, seqs, strict=True):
        yield _Forgettable(at, "responses", threads[seq].seqs, threads[seq].size_bytes)


def _conversations(connection: Connection) -> Iterator[_Forgettable]:
    age = conversations.c.changed_at
    times, seqs = _oldest(connection, conversations, conversations.c.seq > 0, age)
    sizes = conversation_rows.sizes(connection, seqs)
    for at, seq in zip(times, seqs, strict=True):
        yield _Forgettable(at, "conversations", [seq], sizes.get(seq, 0))


def _oldest(
    connection: Connection,
    table: Table,
    claim: ColumnElement[bool],
    age: ColumnElement[int] | None = None,
) -> tuple[Sequence[int], Sequence[int]]:
    """When, and the numbers of the oldest rows that nobody else is changing."""
    age = table.c.created_at if age is None else age
    some = select(age, table.c.seq).where(claim).order_by(age, table.c.seq).limit(SOME)
    rows = connection.execute(some.with_for_update(of=table, skip_locked=True)).all()
    return [row[0] for row in rows], [row[1] for row in rows]


def _delete(connection: Connection, table: Table, seqs: Sequence[int]) -> int:
    these = delete_from(table).where(table.c.seq.in_(seqs))
    if not seqs:
        return 0
    if "size_bytes" not in table.c:
        connection.execute(these)
        return 0
    return sum(connection.scalars(these.returning(table.c.size_bytes)))


_FORGET: Mapping[str, Callable[[Connection, Sequence[int]], int]] = {
    "chats": lambda connection, seqs: _delete(connection, chats, seqs),
    "responses": response_rows.forget_some,
    "conversations": conversation_rows.forget_some,
}
