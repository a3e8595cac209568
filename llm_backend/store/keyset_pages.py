"""Keyset pagination: a page begins where the last one ended, by value and never by offset.

A page costs an index search and `limit` rows, wherever it begins. A page ends early if its rows
would exceed the bytes that `PAGE_LIMIT_OPTION` sets; the rows after it are not read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Literal, Protocol, TypeVar

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Engine,
    ExecutionContext,
    Integer,
    Label,
    Row,
    Select,
    Text,
    event,
    literal_column,
    tuple_,
)

from llm_backend.store.errors import Missing, UnknownCursor

Order = Literal["asc", "desc"]

PAGE_LIMIT_OPTION = "page_limit_bytes"
"""Execution option of a connection: bytes of the rows of one page, which has at least one row."""

_ROW_BYTES = "row_bytes"
_IS_PAGE = "is_page"  # execution option of a statement


class Identified(Protocol):
    """An object with an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list, in order. `has_more` is True if items follow the last one, or, for a page
    `before` an item, precede the first one."""

    items: Sequence[T]
    has_more: bool

    @property
    def first_id(self) -> str | None:
        """The id of the first item; None on an empty page."""
        return self.items[0].id if self.items else None

    @property
    def last_id(self) -> str | None:
        """The cursor of the next page; None on an empty page."""
        return self.items[-1].id if self.items else None


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Request for a page: up to `limit` items after the item `after`, before the item `before`, or
    from the start."""

    after: str | None = None
    before: str | None = None
    limit: int = 20
    order: Order = "asc"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"A page must hold at least one item, not {self.limit}.")
        if self.after is not None and self.before is not None:
            raise ValueError("A page must be after one item or before one, not both.")

    @property
    def is_ascending(self) -> bool:
        """True if the index is read upwards. A page before an item is read in reverse."""
        return (self.order == "asc") is (self.before is None)


def cursor_keys(
    request: PageRequest, find_keys: Callable[[str], Sequence[object]]
) -> Sequence[object] | None:
    """Returns the sort keys of the item after or before which the page begins; None for the first
    page. `find_keys` returns the keys of an id, or raises `Missing`. Raises `UnknownCursor`."""
    for parameter, cursor in (("after", request.after), ("before", request.before)):
        if cursor is not None:
            try:
                return find_keys(cursor)
            except Missing as error:
                raise UnknownCursor(cursor, parameter) from error
    return None


def fetch(
    connection: Connection,
    statement: Select[Any],
    request: PageRequest,
    *,
    keys: Sequence[ColumnElement[Any]],  # a column's type does not matter to its order
    bound: Sequence[object] | None,
    size: ColumnElement[int] | None = None,
) -> tuple[Sequence[Row[Any]], bool]:
    """Returns the rows of one page of `statement`, and whether more follow.

    `keys` order the list and are unique together; `bound` has their values in the item after or
    before which the page begins. `size` is the column with the bytes of a row, if there is one.
    """
    is_ascending = request.is_ascending
    if bound is not None:
        position = tuple_(*keys)
        cursor = tuple_(*bound, types=[key.type for key in keys])
        statement = statement.where(position > cursor if is_ascending else position < cursor)
    ordering = [key if is_ascending else key.desc() for key in keys]
    statement = statement.order_by(*ordering).limit(_literal(request.limit + 1))
    limit_bytes: int = connection.get_execution_options()[PAGE_LIMIT_OPTION]
    is_postgresql = connection.dialect.name == "postgresql"
    if size is None:
        columns = tuple(statement.exported_columns)
        statement = statement.add_columns(_bytes_of(columns, is_postgresql=is_postgresql))
    else:
        statement = statement.add_columns(size.label(_ROW_BYTES))
    options = {_IS_PAGE: True} if is_postgresql else {}
    with connection.execute(statement, execution_options=options) as result:
        rows, has_more = _take(result, request.limit, limit_bytes)  # SQLite reads its rows here
    return rows if request.before is None else rows[::-1], has_more


def limit_page_bytes(engine: Engine) -> None:
    """Makes PostgreSQL send only the rows that fit a page, and the next one. It would send all rows
    of a statement together; a long value is only read if it is sent.

    The statement is wrapped as text: expressions would take longer to build than the page."""
    event.listen(engine, "before_cursor_execute", _bound_page, retval=True)


def _bound_page(
    connection: Connection,
    _cursor: Any,  # the driver's
    statement: str,
    parameters: Any,  # the driver's
    context: ExecutionContext,
    _is_many: bool,
) -> tuple[str, Any]:
    if not context.execution_options.get(_IS_PAGE):
        return statement, parameters
    limit_bytes: int = connection.get_execution_options()[PAGE_LIMIT_OPTION]
    bounded = (
        f"WITH listed AS ({statement}) SELECT * FROM listed LIMIT ("  # noqa: S608 # ours, a number
        "SELECT greatest(1, count(*)) + 1 FROM ("
        f"SELECT sum({_ROW_BYTES}) OVER (ROWS UNBOUNDED PRECEDING) AS total FROM listed"
        f") AS sums WHERE total <= {limit_bytes})"
    )
    return bounded, parameters


def _take(
    rows: Iterable[Row[Any]], limit: int, limit_bytes: int
) -> tuple[Sequence[Row[Any]], bool]:
    """Returns the first rows within both limits, at least one, and whether more follow. The last
    value of a row is the number of its bytes."""
    taken: list[Row[Any]] = []
    for row in rows:
        limit_bytes -= row[-1]
        if taken and (limit_bytes < 0 or len(taken) == limit):
            return taken, True
        taken.append(row)
    return taken, False


@lru_cache
def _literal(number: int) -> ColumnElement[int]:
    """Returns the number as SQL. If the limit were a parameter, PostgreSQL would plan the statement
    at each execution, which takes longer than to read the page."""
    return literal_column(str(number), Integer)


@lru_cache
def _bytes_of(columns: tuple[ColumnElement[Any], ...], *, is_postgresql: bool) -> Label[int]:
    """Returns the sum of the bytes of these columns, as SQL text: building and hashing an
    expression takes longer than the page."""
    length = "octet_length({}::text)" if is_postgresql else "length(CAST({} AS BLOB))"
    names = (f'{one.table.name}."{one.name}"' for one in _texts(columns))
    sizes = (f"coalesce({length.format(name)}, 0)" for name in names)
    return literal_column(" + ".join(sizes), Integer).label(_ROW_BYTES)


def _texts(columns: Sequence[ColumnElement[Any]]) -> list[Column[Any]]:
    """Returns the columns of texts and JSON values, which may be long."""
    return [one for one in columns if isinstance(one, Column) and isinstance(one.type, JSON | Text)]
