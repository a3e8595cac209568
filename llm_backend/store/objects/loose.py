"""Loose blobs: what is in the object store and belongs to no row yet, or no longer.

A blob is noted here before its first byte is written, and a row that takes it up takes the note
away in the same transaction; a row that is deleted leaves a note. So whatever a killed process left
behind is known, and nothing has to be looked for in the object store.

A note that is due is *doomed* in a transaction of its own before its objects are removed: from then
on nobody can take the blob up, whatever clock he goes by.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from llm_backend.store.errors import BlobGone
from llm_backend.store.objects.blob import Blob
from llm_backend.store.tables import loose_blobs

__all__ = ["claim", "doom", "doom_due", "forget", "let_go", "note", "postpone"]

_SOME = 500  # keys in one statement


def note(connection: Connection, key: str, due_at: int) -> None:
    """A blob is going to be written."""
    connection.execute(insert(loose_blobs), {"key": key, "due_at": due_at, "is_doomed": False})


def postpone(connection: Connection, key: str, due_at: int) -> None:
    """It is still being written."""
    connection.execute(update(loose_blobs).where(loose_blobs.c.key == key).values(due_at=due_at))


def claim(connection: Connection, content: Iterable[Blob]) -> None:
    """A row takes these blobs up. Raises `BlobGone` for one that has been given up."""
    for blob in content:
        free = (loose_blobs.c.key == blob.key) & ~loose_blobs.c.is_doomed
        if connection.execute(delete(loose_blobs).where(free)).rowcount != 1:
            raise BlobGone(blob.key)


def let_go(connection: Connection, content: Iterable[Blob]) -> Sequence[str]:
    """The row that had these blobs is gone; the keys to remove, now or by the next sweep."""
    keys = [blob.key for blob in content]
    if keys:
        rows = [{"key": key, "due_at": 0, "is_doomed": True} for key in keys]
        connection.execute(insert(loose_blobs), rows)
    return keys


def doom(connection: Connection, key: str) -> bool:
    """Gives one up; whether it was still loose."""
    this = update(loose_blobs).where(loose_blobs.c.key == key)
    return connection.execute(this.values(is_doomed=True)).rowcount == 1


def doom_due(connection: Connection, now: int, after: str = "") -> Sequence[str]:
    """Gives up all that are due; some of those that are to be removed, behind the key `after`."""
    due = update(loose_blobs).where(loose_blobs.c.due_at <= now, ~loose_blobs.c.is_doomed)
    connection.execute(due.values(is_doomed=True))
    doomed = select(loose_blobs.c.key).where(loose_blobs.c.is_doomed, loose_blobs.c.key > after)
    return connection.scalars(doomed.order_by(loose_blobs.c.key).limit(_SOME)).all()


def forget(connection: Connection, keys: Sequence[str]) -> None:
    """Their objects have been removed."""
    for start in range(0, len(keys), _SOME):
        some = loose_blobs.c.key.in_(keys[start : start + _SOME])
        connection.execute(delete(loose_blobs).where(some))
