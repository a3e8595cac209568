"""Orphaned blobs: objects in the object store that do not belong to a row yet, or no longer.

A blob gets a row here before its first byte is written. The transaction that stores a reference to
the blob deletes this row. The transaction that deletes the reference inserts the row again, marked
deleted. The blob's objects are then removed immediately, or by the next sweep. So the blobs of a
killed process are known without a listing of the object store.

An orphan that was never claimed is due `blobs.GRACE_S` after it was added or last postponed. It is
then marked deleted, in a transaction of its own, before its objects are removed. From then on it
cannot be claimed, whatever a process's clock says."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from llm_backend.store.errors import BlobGone
from llm_backend.store.objects.blob import Blob
from llm_backend.store.statement_parts import statement_parts
from llm_backend.store.tables.files import orphans

_KEYS_PER_STEP = 500  # keys whose objects are removed in one step


def add(connection: Connection, key: str, due_at: int) -> None:
    """Inserts the row of a blob that is about to be written."""
    connection.execute(insert(orphans), {"key": key, "due_at": due_at, "is_marked_deleted": False})


def postpone(connection: Connection, key: str, due_at: int) -> None:
    """Extends the time for a blob that is still being written."""
    connection.execute(update(orphans).where(orphans.c.key == key).values(due_at=due_at))


def claim(connection: Connection, content: Iterable[Blob]) -> None:
    """Claims these blobs for a row. Raises `BlobGone` for a blob that is marked deleted."""
    for blob in content:
        free = (orphans.c.key == blob.key) & ~orphans.c.is_marked_deleted
        if connection.execute(delete(orphans).where(free)).rowcount != 1:
            raise BlobGone(blob.key)


def discard(connection: Connection, content: Iterable[Blob]) -> Sequence[str]:
    """Marks the blobs of a deleted row as deleted; returns the keys to remove, now or in the next
    sweep."""
    keys = [blob.key for blob in content]
    if keys:
        rows = [{"key": key, "due_at": 0, "is_marked_deleted": True} for key in keys]
        connection.execute(insert(orphans), rows)
    return keys


def mark_deleted(connection: Connection, key: str) -> bool:
    """Marks one orphan deleted; false if it was claimed."""
    this = update(orphans).where(orphans.c.key == key)
    return connection.execute(this.values(is_marked_deleted=True)).rowcount == 1


def mark_due_deleted(connection: Connection, now: int, after: str = "") -> Sequence[str]:
    """Marks all due orphans deleted; returns the next keys to remove, in order, after `after`."""
    due = update(orphans).where(orphans.c.due_at <= now, ~orphans.c.is_marked_deleted)
    connection.execute(due.values(is_marked_deleted=True))
    marked = select(orphans.c.key).where(orphans.c.is_marked_deleted, orphans.c.key > after)
    return connection.scalars(marked.order_by(orphans.c.key).limit(_KEYS_PER_STEP)).all()


def forget(connection: Connection, keys: Sequence[str]) -> None:
    """Deletes the rows of blobs whose objects are removed."""
    for part in statement_parts(keys):
        connection.execute(delete(orphans).where(orphans.c.key.in_(part)))
