"""Pagination parameters of list queries."""

from collections.abc import Mapping
from typing import Any, TypedDict

from llm_backend.errors import InvalidRequest
from llm_backend.store.keyset_pages import Order

DEFAULT_LIMIT = 20  # default of the document for nearly all lists


class PageArguments(TypedDict):
    """Pagination arguments of the store's lists."""

    after: str | None
    limit: int
    order: Order


def page_arguments(
    query: Mapping[str, Any], *, limit: int = DEFAULT_LIMIT, order: Order = "desc"
) -> PageArguments:
    """Returns the pagination of a validated query; `limit` and `order` are the defaults."""
    return {
        "after": query.get("after"),
        "limit": query.get("limit", limit),
        "order": query.get("order", order),
    }


def refuse_both_cursors(query: Mapping[str, Any]) -> None:
    """Raises `InvalidRequest` for a query with both `after` and `before`."""
    if query.get("after") is not None and query.get("before") is not None:
        raise InvalidRequest("Only one of `after` and `before` can be given.", param="before")
