"""Keyset pagination: a page begins where the last one ended, by value and never by count.

The cost of a page is an index search and `limit` rows, whichever page it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, tuple_

__all__ = ["Identified", "Order", "Page", "PageRequest", "fetch"]

Order = Literal["asc", "desc"]


class Identified(Protocol):
    """Whatever has an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some of a list, in order; `has_more` says whether anything follows the last item."""

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
    """Which page: up to `limit` items that follow the one named `after`, or the first ones."""

    after: str | None = None
    limit: int = 20
    order: Order = "asc"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"A page holds at least one item, not {self.limit}.")


def fetch(
    connection: Connection,
    statement: Select[Any],
    request: PageRequest,
    *,
    keys: Sequence[ColumnElement[Any]],  # a column's type does not matter to its order
    end: Sequence[object] | None,
) -> tuple[Sequence[Row[Any]], bool]:
    """The rows of one page of `statement`, and whether more follow.

    `keys` order the list and are unique together; `end` are their values in the item `after`.
    """
    is_ascending = request.order == "asc"
    if end is not None:
        position = tuple_(*keys)
        last = tuple_(*end, types=[key.type for key in keys])
        statement = statement.where(position > last if is_ascending else position < last)
    ordering = [key if is_ascending else key.desc() for key in keys]
    rows = connection.execute(statement.order_by(*ordering).limit(request.limit + 1)).all()
    return rows[: request.limit], len(rows) > request.limit
