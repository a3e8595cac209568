"""Parts of items that are read before a model is shown them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

__all__ = ["with_parts_read"]

Json = dict[str, Any]
Part = Mapping[str, Any]


async def with_parts_read(
    items: Sequence[Json],
    where: str | None,
    is_meant: Callable[[object], bool],
    read: Callable[[Part, str], Awaitable[Json]],
) -> list[Json]:
    """The items with what `read` makes of each part that is meant, of which it is told the place.
    `where` names the list that they are, None for what was said earlier."""
    read_items = []
    for place, item in enumerate(items):
        at = "input" if where is None else f"{where}[{place}]"
        for name in ("content", "output"):
            parts = item.get(name)
            if isinstance(parts, list) and any(map(is_meant, parts)):
                item = {**item, name: await _read(parts, f"{at}.{name}", is_meant, read)}
        read_items.append(item)
    return read_items


async def _read(
    parts: Sequence[Any],
    where: str,
    is_meant: Callable[[object], bool],
    read: Callable[[Part, str], Awaitable[Json]],
) -> list[Any]:
    return [
        await read(part, f"{where}[{place}]") if is_meant(part) else part
        for place, part in enumerate(parts)
    ]
