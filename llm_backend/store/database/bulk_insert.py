"""Bulk inserts: on SQLite by multi-row statements of a few sizes, which the driver keeps prepared.

SQLAlchemy processes the values of every row. SQLite's driver releases and takes the interpreter's
lock for every row that a statement returns or repeats, while the event loop wants that lock. Both
cost more than the insertion. Here one statement holds the values of all its rows and returns none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, TableClause, insert, text

from llm_backend.store.database.ownership import owner_of
from llm_backend.store.database.upsert import insert_into

Row = Mapping[str, Any]

# Rows of one statement. The driver keeps each statement prepared, at 3 kB a row.
_SIZES = (64, 16, 4, 1)


def insert_unless_taken(
    connection: Connection, table: Table, rows: Sequence[Row]
) -> dict[str, int]:
    """Inserts the rows whose `id` is not taken; returns the `seq` of each by its `id`.

    All rows have the same columns, including those without a default. JSON values are already
    encoded.
    """
    if not _is_direct(connection):
        statement = insert_into(connection, table).on_conflict_do_nothing(index_elements=["id"])
        returned = connection.execute(statement.returning(table.c.id, table.c.seq), list(rows))
        return {row.id: row.seq for row in returned}
    seqs: dict[str, int] = {}
    for group in _groups(rows):
        seqs |= _insert_rows(connection, table, group)
    return seqs


def insert_rows(connection: Connection, table: Table | TableClause, rows: Sequence[Row]) -> None:
    """Inserts rows of the same columns; JSON values are already encoded."""
    if not rows:
        return
    if not _is_direct(connection):
        connection.execute(insert(table), list(rows))
        return
    for group in _groups(rows):
        _insert(connection, table, group, "")


def _is_direct(connection: Connection) -> bool:
    """True if rows can go to SQLite's driver unchanged, as no owner has to be added to them."""
    return connection.dialect.name == "sqlite" and owner_of(connection) is None


def _insert_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> dict[str, int]:
    result = _insert(connection, table, rows, " ON CONFLICT (id) DO NOTHING")
    last, new = result.lastrowid, result.rowcount
    if new == len(rows):  # contiguous: there is one writer at a time
        return {row["id"]: last - new + index for index, row in enumerate(rows, 1)}
    if not new:
        return {}
    between = text(
        f"SELECT id, seq FROM {table.name} WHERE seq > :after AND seq <= :last"  # noqa: S608 # our name
    )
    found = connection.execute(between, {"after": last - new, "last": last})
    return {row.id: row.seq for row in found}


def _insert(
    connection: Connection, table: Table | TableClause, rows: Sequence[Row], tail: str
) -> Any:
    names = tuple(rows[0])
    values = ",".join(["(" + ",".join("?" * len(names)) + ")"] * len(rows))
    statement = f"INSERT INTO {table.name} ({','.join(names)}) VALUES {values}{tail}"  # noqa: S608 # our names
    flat = tuple([row[name] for row in rows for name in names])
    return connection.exec_driver_sql(statement, flat)


def _groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
