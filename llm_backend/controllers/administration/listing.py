"""One page of anything that is administered, as the document's lists have it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from llm_backend.controllers.rendering.page_query import DEFAULT_LIMIT, both_sides_refused
from llm_backend.errors import InvalidRequest
from llm_backend.store.keyset_pages import Identified, Order, Page, PageRequest

__all__ = ["list_object", "list_page"]

T = TypeVar("T", bound=Identified)
Json = dict[str, Any]

LIMIT_MOST = 1000  # of what is put into one answer
AT_ONCE = 200  # looked through at once, where some are left out


async def list_page(
    query: Mapping[str, Any],
    find: Callable[[PageRequest], Awaitable[Page[T]]],
    *,
    limit: int = DEFAULT_LIMIT,
    order: Order = "asc",
    id_of: Callable[[str], str] = lambda id: id,
    wanted: Callable[[T], bool] | None = None,
) -> Page[T]:
    """The page that a query with `limit`, `order`, `after` or `before` asks for.

    `id_of` makes the store's id of a client's; `wanted` says which are left in.
    """
    size = int(query.get("limit", limit))
    if not 0 <= size <= LIMIT_MOST:
        raise InvalidRequest(f"`limit` is {size}; it must be 0 to {LIMIT_MOST}.", param="limit")
    order = query.get("order", order)
    after, before = query.get("after"), query.get("before")
    both_sides_refused(query)
    request = PageRequest(
        after=None if after is None else id_of(after),
        before=None if before is None else id_of(before),
        limit=max(1, size),
        order=order,
    )
    page = await (find(request) if wanted is None else _select(find, request, wanted))
    if size == 0:
        return Page(items=(), has_more=bool(page.items))
    return page


def list_object(data: list[Json], *, has_more: bool) -> Json:
    """A list as the document has it; an empty one has no first and no last."""
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
    wanted: Callable[[T], bool],
) -> Page[T]:
    """As many as are asked for of those that are wanted."""
    chosen: list[T] = []
    is_backwards = request.before is not None
    part, has_more = replace(request, limit=AT_ONCE), True
    while has_more and len(chosen) <= request.limit:
        page = await find(part)
        some = [one for one in page.items if wanted(one)]
        if is_backwards:
            chosen, part = [*some, *chosen], replace(part, before=page.first_id)
        else:
            chosen, part = [*chosen, *some], replace(part, after=page.last_id)
        has_more = page.has_more
    kept = chosen[-request.limit :] if is_backwards else chosen[: request.limit]
    return Page(items=kept, has_more=len(chosen) > request.limit)
