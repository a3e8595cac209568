"""Ownership: a request stores objects for its owner, and finds, changes and deletes only objects of
this owner.

One module does this for every table of stored objects. Statements do not mention owners; each gets
a condition or a value on its way to the database. The server's own work (a sweep, a job) has no
owner: it finds the objects of all owners, and names the owner of each object that it stores.

The condition applies to the tables that a statement selects from, updates or deletes from. It does
not apply to aliases, or to tables of subqueries. So the object that a client's request refers to
must be read by a statement of its own, which gets the condition.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

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

from llm_backend.store.database.write_queue import UnitOfWork

T = TypeVar("T")

OWNED = "owned"
"""Key in `Table.info` of a table whose stored objects have owners."""

Parameters = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Owner of stored objects: a project. `id` is None for the default project, whose rows name no
    owner; so it also owns rows that are older than projects."""

    id: str | None

    @classmethod
    def default_project(cls) -> Self:
        """Returns the default project as an owner."""
        return cls(id=None)


# The owner of the work that runs in this context; None for the server's own work.
_OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
_KEY = "owner"  # in the connection's `info`, during a unit of work


class as_owner:  # noqa: N801 # reads as the context that it is; a class, for its speed
    """Context in which the work on the database belongs to this owner, or to none."""

    __slots__ = ("_before", "_owner")

    def __init__(self, owner: Owner | None) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._before = _OWNER.set(self._owner)

    def __exit__(self, *_: object) -> None:
        _OWNER.reset(self._before)


def current_owner() -> Owner | None:
    """The owner of this context; for objects that are stored later, outside of it."""
    return _OWNER.get()


def with_owner(work: UnitOfWork[T]) -> UnitOfWork[T]:
    """The unit of work with the owner of this context, whichever thread runs it."""
    owner = _OWNER.get()
    return work if owner is None else partial(_run_with_owner, work=work, owner=owner)


def owner_of(connection: Connection) -> Owner | None:
    """The owner of the statements on this connection now; None for the server's own work."""
    owner: Owner | None = connection.info.get(_KEY)
    return owner


def enforce_ownership(engine: Engine) -> None:
    """Adds the owner to each select, insert, update and delete of an owned table on this engine.
    Texts of SQL, unions and aliases pass unchanged."""
    event.listen(engine, "before_execute", _add_owner, retval=True)


def _run_with_owner(connection: Connection, work: UnitOfWork[T], owner: Owner) -> T:
    connection.info[_KEY] = owner
    try:
        return work(connection)
    finally:
        del connection.info[_KEY]


def _add_owner(
    connection: Connection,
    statement: Any,  # any executable
    rows: Parameters,
    row: Mapping[str, Any],
    _options: Mapping[str, Any],
) -> tuple[Any, Parameters, Mapping[str, Any]]:
    owner = owner_of(connection)
    if owner is None:
        return statement, rows, row
    if isinstance(statement, Insert):
        return _add_owner_to_insert(statement, rows, row, owner)
    if isinstance(statement, Select):
        return statement.where(*_conditions(_owned_tables(statement), owner)), rows, row
    if isinstance(statement, Update | Delete) and isinstance(statement.table, Table):
        return statement.where(*_conditions([statement.table], owner)), rows, row
    return statement, rows, row


def _add_owner_to_insert(
    statement: Insert, rows: Parameters, row: Mapping[str, Any], owner: Owner
) -> tuple[Any, Parameters, Mapping[str, Any]]:
    if not (isinstance(statement.table, Table) and statement.table.info.get(OWNED)):
        return statement, rows, row
    if rows:
        return statement, [{**one, "owner": owner.id} for one in rows], row
    if row:
        return statement, rows, {**row, "owner": owner.id}
    return statement.values(owner=owner.id), rows, row


def _owned_tables(statement: Select[Any]) -> Sequence[Table]:
    """The tables with owners that a statement selects from.

    SQLAlchemy takes as long to list all of these as to compile the statement (0.2 ms). So they are
    listed only if the statement names a table of which it selects no column: a joined table, or one
    in a subquery.
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
