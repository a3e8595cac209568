"""Whose a stored object is: everything is stored for the owner in whose name a request is answered,
and only what is the owner's is found, changed and deleted then.

It is done in one place, for every table of stored objects there is and will be: the statements say
nothing of owners, and are given a condition, or a value, on their way to the database. Work that
the server does by itself (a sweep, a job) is done in nobody's name and finds everything; what it
stores for somebody says for whom.

The condition is put on the tables that a statement selects from, updates or deletes from, and not
on aliases or those of its subqueries: whoever follows a reference of a client's does so in a
statement of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Insert,
    Join,
    Select,
    Table,
    Update,
    event,
)
from sqlalchemy.sql import visitors

from llm_backend.store.writing import Work

__all__ = ["OWNED", "Owner", "guard", "in_the_name_of", "owned", "present_owner"]

T = TypeVar("T")

OWNED = "owned"
"""What `Table.info` says of a table of stored objects that have owners."""

Parameters = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who owns; without an id it is whoever owns what was stored before there were owners."""

    id: str | None


# In whose name things are stored and found, wherever a request's work is done; None: in nobody's.
_OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
_KEY = "owner"  # in the connection's `info`, as long as a unit of work lasts


class in_the_name_of:  # reads as the context that it is; a class, for its speed
    """What is asked of the database within is asked in this owner's name, or in nobody's."""

    __slots__ = ("_before", "_owner")

    def __init__(self, owner: Owner | None) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._before = _OWNER.set(self._owner)

    def __exit__(self, *_: object) -> None:
        _OWNER.reset(self._before)


def present_owner() -> Owner | None:
    """In whose name the database is asked now; for what is stored later, when it is nobody's."""
    return _OWNER.get()


def owned(work: Work[T]) -> Work[T]:
    """The unit of work, in the name of whom it is asked for now, whichever thread does it."""
    owner = _OWNER.get()
    return work if owner is None else partial(_do, work=work, owner=owner)


def guard(engine: Engine) -> None:
    """Holds every statement on this engine to the owner of the work that it belongs to."""
    event.listen(engine, "before_execute", _with_owner, retval=True)


def _do(connection: Connection, work: Work[T], owner: Owner) -> T:
    connection.info[_KEY] = owner
    try:
        return work(connection)
    finally:
        del connection.info[_KEY]


def _with_owner(
    connection: Connection,
    statement: Any,  # whatever can be executed
    rows: Parameters,
    row: Mapping[str, Any],
    _options: Mapping[str, Any],
) -> tuple[Any, Parameters, Mapping[str, Any]]:
    owner: Owner | None = connection.info.get(_KEY)
    if owner is None:
        return statement, rows, row
    if isinstance(statement, Insert):
        return _inserted(statement, rows, row, owner)
    if isinstance(statement, Select):
        return statement.where(*_conditions(_selected_from(statement), owner)), rows, row
    if isinstance(statement, Update | Delete) and isinstance(statement.table, Table):
        return statement.where(*_conditions([statement.table], owner)), rows, row
    return statement, rows, row


def _inserted(
    statement: Insert, rows: Parameters, row: Mapping[str, Any], owner: Owner
) -> tuple[Any, Parameters, Mapping[str, Any]]:
    if not (isinstance(statement.table, Table) and statement.table.info.get(OWNED)):
        return statement, rows, row
    if rows:
        return statement, [{**one, "owner": owner.id} for one in rows], row
    if row:
        return statement, rows, {**row, "owner": owner.id}
    return statement.values(owner=owner.id), rows, row


def _selected_from(statement: Select[Any]) -> Sequence[Table]:
    """The owned tables that a statement selects from.

    To ask a statement for all that it selects from takes as long as to compile it (0.2 ms), and is
    needed only where one is in it that is not of its columns: joined, or in a subquery.
    """
    selected = [one for one in statement.columns_clause_froms if isinstance(one, Table)]
    named = {
        node if isinstance(node, Table) else node.table
        for node in visitors.iterate(statement)
        if isinstance(node, Table | Column)
    }
    others = [table for table in named.difference(selected) if isinstance(table, Table)]
    if not any(table.info.get(OWNED) for table in others):
        return selected
    return [table for one in statement.get_final_froms() for table in _tables(one)]


def _tables(selected: Any) -> Iterator[Table]:  # a table, or a join of some
    if isinstance(selected, Join):
        yield from _tables(selected.left)
        yield from _tables(selected.right)
    elif isinstance(selected, Table):
        yield selected


def _conditions(tables: Sequence[Table], owner: Owner) -> list[ColumnElement[bool]]:
    return [
        table.c.owner.is_(None) if owner.id is None else table.c.owner == owner.id
        for table in tables
        if table.info.get(OWNED)
    ]
