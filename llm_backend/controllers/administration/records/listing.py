"""Cursor pagination of administration lists."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from starlette.responses import Response

from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.page_query import DEFAULT_LIMIT, refuse_both_cursors
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store.keyset_pages import Identified, Order, Page, PageRequest

T = TypeVar("T", bound=Identified)

MAX_PAGE_ITEMS = 1000
ITEMS_PER_QUERY = 200  # of a filtered list


async def list_page(
    query: Mapping[str, Any],
    find: Callable[[PageRequest], Awaitable[Page[T]]],
    *,
    limit: int = DEFAULT_LIMIT,
    order: Order = "asc",
    id_of: Callable[[str], str] = lambda id: id,
    matches: Callable[[T], bool] | None = None,
) -> Page[T]:
    """Returns the page of a query with `limit`, `order`, `after` or `before`.

    `id_of` maps an id of the API to that of the store; `matches` filters the items.
    """
    size = int(query.get("limit", limit))
    if not 0 <= size <= MAX_PAGE_ITEMS:
        raise InvalidRequest(f"`limit` is {size}; it must be 0 to {MAX_PAGE_ITEMS}.", param="limit")
    order = query.get("order", order)
    after, before = query.get("after"), query.get("before")
    refuse_both_cursors(query)
    request = PageRequest(
        after=None if after is None else id_of(after),
        before=None if before is None else id_of(before),
        limit=max(1, size),
        order=order,
    )
    page = await (find(request) if matches is None else _select(find, request, matches))
    if size == 0:
        return Page(items=(), has_more=bool(page.items))
    return page


async def paged_response(
    kind: str,
    query: Mapping[str, Any],
    find: Callable[[PageRequest], Awaitable[Page[T]]],
    render: Callable[[T], JsonMapping],
    *,
    order: Order = "asc",
    matches: Callable[[T], bool] | None = None,
) -> Response:
    """Answers with the page of `list_page`, rendered; `kind` names the items in errors."""
    with translate_store_errors(kind):
        page = await list_page(query, find, order=order, matches=matches)
    return JsonResponse(list_object([render(item) for item in page.items], has_more=page.has_more))


def list_object(data: Sequence[JsonMapping], *, has_more: bool) -> JsonObject:
    """Renders a list; `first_id` and `last_id` of an empty one are null."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


async def _select(
    find: Callable[[PageRequest], Awaitable[Page[T]]],
    request: PageRequest,
    matches: Callable[[T], bool],
) -> Page[T]:
    """Returns a page of the items that match, by as many queries as it takes."""
    selected: list[T] = []
    is_backwards = request.before is not None
    part, has_more = replace(request, limit=ITEMS_PER_QUERY), True
    while has_more and len(selected) <= request.limit:
        page = await find(part)
        batch = [one for one in page.items if matches(one)]
        if is_backwards:
            selected, part = [*batch, *selected], replace(part, before=page.first_id)
        else:
            selected, part = [*selected, *batch], replace(part, after=page.last_id)
        has_more = page.has_more
    remaining = selected[-request.limit :] if is_backwards else selected[: request.limit]
    return Page(items=remaining, has_more=len(selected) > request.limit)
