"""Which page of a list a query asks for."""

from collections.abc import Mapping
from typing import Any, TypedDict

from llm_backend.errors import InvalidRequest
from llm_backend.store.keyset_pages import Order

__all__ = ["DEFAULT_LIMIT", "PageWanted", "both_sides_refused", "page_wanted"]

DEFAULT_LIMIT = 20  # the document's, of nearly all lists


class PageWanted(TypedDict):
    """What the lists of the store take."""

    after: str | None
    limit: int
    order: Order


def page_wanted(
    query: Mapping[str, Any], *, limit: int = DEFAULT_LIMIT, order: Order = "desc"
) -> PageWanted:
    """The page of a query, whose types are checked; `limit` and `order` where it names none."""
    return {
        "after": query.get("after"),
        "limit": query.get("limit", limit),
        "order": query.get("order", order),
    }


def both_sides_refused(query: Mapping[str, Any]) -> None:
    """Raises `InvalidRequest` for a page that is to be `after` one thing and `before` another."""
    if query.get("after") is not None and query.get("before") is not None:
        raise InvalidRequest("Only one of `after` and `before` can be given.", param="before")
