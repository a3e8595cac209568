"""Total bytes of all files, parts of uploads and audio of voices, of all owners: a counter that is
changed in the transactions that change what it counts. A limit costs the same for any number of
files, and holds for concurrent uploads.

A transaction changes the counter last, because other transactions that store files wait for it from
then on.
"""

from sqlalchemy import Connection, func, select, update

from llm_backend.store.database.metadata import counters
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.errors import FilesFull
from llm_backend.store.tables.files import files, upload_parts
from llm_backend.store.tables.voices import voice_consents, voices

_NAME = "file_bytes"
_COUNTED = (files, upload_parts, voice_consents, voices)
_THIS = counters.c.name == _NAME


def add(connection: Connection, size_bytes: int, limit_bytes: int | None = None) -> None:
    """Adds bytes to the total. Raises `FilesFull` if the total then exceeds `limit_bytes`."""
    insert = insert_into(connection, counters)
    more = {"value": counters.c.value + insert.excluded["value"]}
    grown = insert.on_conflict_do_update(index_elements=["name"], set_=more)
    row = {"name": _NAME, "value": size_bytes}
    total_bytes = connection.execute(grown.returning(counters.c.value), row).scalar_one()
    if limit_bytes is not None and total_bytes > limit_bytes:
        raise FilesFull(limit_bytes)


def subtract(connection: Connection, size_bytes: int) -> None:
    """Subtracts bytes from the total."""
    if size_bytes:
        less = counters.c.value - size_bytes
        connection.execute(update(counters).where(_THIS).values(value=less))


def check_capacity(connection: Connection, added_bytes: int, limit_bytes: int) -> None:
    """Raises `FilesFull` if this many bytes more would exceed `limit_bytes` now."""
    if stored_bytes(connection) + added_bytes > limit_bytes:
        raise FilesFull(limit_bytes)


def stored_bytes(connection: Connection) -> int:
    """The total of stored bytes."""
    return connection.scalar(select(counters.c.value).where(_THIS)) or 0


def recount(connection: Connection) -> tuple[int, int]:
    """Recounts the total while other transactions that store files wait; returns the total before
    and the true one."""
    add(connection, 0)  # creates the row, and locks it until the transaction ends
    before = stored_bytes(connection)
    sums = [select(func.coalesce(func.sum(t.c.size_bytes), 0)) for t in _COUNTED]
    actual = sum(int(connection.scalar(one) or 0) for one in sums)
    connection.execute(update(counters).where(_THIS).values(value=actual))
    return before, actual
