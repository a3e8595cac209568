"""How many bytes all files and parts of uploads have, whosever they are: one number, changed in the
transactions that change what it is the sum of, so that a bound costs the same however many there
are and holds for those who store at the same moment.

Whoever changes it does so last: until his transaction ends, all others who store files wait.
"""

from sqlalchemy import Connection, func, select, update

from llm_backend.store.errors import FilesFull
from llm_backend.store.tables import counters, files, upload_parts
from llm_backend.store.upsert import insert_into

__all__ = ["add", "check_room", "kept_bytes", "recount", "take"]

_NAME = "file_bytes"
_THIS = counters.c.name == _NAME


def add(connection: Connection, size_bytes: int, limit_bytes: int | None = None) -> None:
    """So many bytes more. Raises `FilesFull` where there are more than `limit_bytes` then."""
    insert = insert_into(connection, counters)
    more = {"value": counters.c.value + insert.excluded["value"]}
    grown = insert.on_conflict_do_update(index_elements=["name"], set_=more)
    row = {"name": _NAME, "value": size_bytes}
    total_bytes = connection.execute(grown.returning(counters.c.value), row).scalar_one()
    if limit_bytes is not None and total_bytes > limit_bytes:
        raise FilesFull(limit_bytes)


def take(connection: Connection, size_bytes: int) -> None:
    """So many bytes less."""
    if size_bytes:
        less = counters.c.value - size_bytes
        connection.execute(update(counters).where(_THIS).values(value=less))


def check_room(connection: Connection, added_bytes: int, limit_bytes: int) -> None:
    """Raise `FilesFull` where so many bytes more would be more than `limit_bytes` now."""
    if kept_bytes(connection) + added_bytes > limit_bytes:
        raise FilesFull(limit_bytes)


def kept_bytes(connection: Connection) -> int:
    """How many there are."""
    return connection.scalar(select(counters.c.value).where(_THIS)) or 0


def recount(connection: Connection) -> tuple[int, int]:
    """Count them anew, with everybody else who stores files waiting: how many the number said, and
    how many there are."""
    add(connection, 0)  # it is there now, and nobody else's until the transaction ends
    counted = kept_bytes(connection)
    sums = [select(func.coalesce(func.sum(t.c.size_bytes), 0)) for t in (files, upload_parts)]
    there = sum(int(connection.scalar(one) or 0) for one in sums)
    connection.execute(update(counters).where(_THIS).values(value=there))
    return counted, there
