"""Upsert: insert a row or change the existing one in one statement, in either dialect."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Table

ROWS_A_STATEMENT = 16
"""Most rows in one INSERT with RETURNING. Each number of rows is a statement of its own. Drivers
cache a hundred statements, and one of a hundred rows takes some 300 kB."""


def insert_into(connection: Connection, table: Table) -> Any:  # Any: one of two classes
    """An insert with `on_conflict_do_nothing` and `on_conflict_do_update`.

    Only the dialect in use is imported: the other one costs megabytes.
    """
    return import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)


def add_up(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts the rows; where a row exists, add the numbers outside the key to its own.

    Rows are locked in the order given: sort them where other transactions may do the same.
    """
    insert = insert_into(connection, table)
    key = [column.name for column in table.primary_key]
    sums = {
        name: table.c[name] + insert.excluded[name]
        for name in table.c.keys()  # noqa: SIM118 # a collection of columns, not a mapping
        if name not in key
    }
    for row in rows:
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=sums), row)
