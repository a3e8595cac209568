"""Keyset pagination: a page begins where the last one ended, by value and never by offset.

The cost of a page is an index search and `limit` rows, at any depth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, tuple_

from llm_backend.store.errors import Missing, UnknownCursor

Order = Literal["asc", "desc"]


class Identified(Protocol):
    """An object with an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list, in order. `has_more` is true if items follow the last one; for a page
    `before` an item, if items precede the first one."""

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
            raise ValueError(f"A page holds at least one item, not {self.limit}.")
        if self.after is not None and self.before is not None:
            raise ValueError("A page is after one item or before one, not both.")

    @property
    def is_ascending(self) -> bool:
        """True if the index is read upwards. A page before an item is read against the list's
        order."""
        return (self.order == "asc") is (self.before is None)


def end_of(
    request: PageRequest, find_keys: Callable[[str], Sequence[object]]
) -> Sequence[object] | None:
    """The sort keys of the item that bounds the page; None for the first page. `find_keys` returns
    the keys of an id, or raises `Missing`. Raises `UnknownCursor`."""
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
    end: Sequence[object] | None,
) -> tuple[Sequence[Row[Any]], bool]:
    """The rows of one page of `statement`, and whether more follow.

    `keys` order the list and are unique together; `end` has their values in the item that bounds
    the page.
    """
    is_ascending = request.is_ascending
    if end is not None:
        position = tuple_(*keys)
        last = tuple_(*end, types=[key.type for key in keys])
        statement = statement.where(position > last if is_ascending else position < last)
    ordering = [key if is_ascending else key.desc() for key in keys]
    read = connection.execute(statement.order_by(*ordering).limit(request.limit + 1)).all()
    rows = read[: request.limit]
    return rows if request.before is None else rows[::-1], len(read) > request.limit
