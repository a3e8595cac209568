"""Keyset pagination: a page begins where the last one ended, by value and never by count.

The cost of a page is an index search and `limit` rows, whichever page it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, tuple_

from llm_backend.store.errors import Missing, UnknownCursor

__all__ = ["Identified", "Order", "Page", "PageRequest", "end_of", "fetch"]

Order = Literal["asc", "desc"]


class Identified(Protocol):
    """Whatever has an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some of a list, in order; `has_more` says whether anything follows the last item, or where
    the page is `before` something, whether anything precedes the first."""

    items: Sequence[T]
    has_more: bool

    @property
    def first_id(self) -> str | None:
        """The id of the first item; None on an empty page."""
        return self.items[0].id if self.items else None

    @property
    def last_id(self) -> str | None:
        """What the next page is asked for with; None on an empty page."""
        return self.items[-1].id if self.items else None


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Which page: up to `limit` items that follow the one named `after`, or that precede the one
    named `before`, or the first ones."""

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
        """The direction in which it is read, which is against its order towards its beginning."""
        return (self.order == "asc") is (self.before is None)


def end_of(
    request: PageRequest, place: Callable[[str], Sequence[object]]
) -> Sequence[object] | None:
    """The keys of the item beside which the page is, None for the first page; `place` finds an
    item's by its id, or raises `Missing`. Raises `UnknownCursor`."""
    for parameter, cursor in (("after", request.after), ("before", request.before)):
        if cursor is not None:
            try:
                return place(cursor)
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

    `keys` order the list and are unique together; `end` are their values in the item beside it.
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
