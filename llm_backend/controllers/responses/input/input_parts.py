"""File and image parts of items, and the fetched content that is stored with them. Pure."""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from llm_backend.backends.web_files import WebFile
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload

__all__ = [
    "FetchedFiles",
    "bare_part",
    "fetched_file",
    "has_fetched",
    "refuse_too_many",
    "with_parts_read",
    "without_fetched",
]

Part = Mapping[str, Any]

_LISTS = ("content", "output")  # fields of an item that may hold parts
_FILES = ("input_file", "input_image")
_FETCHED = "fetched"  # key of a part that clients neither see nor set


class FetchedFiles:
    """Files fetched for the parts of one request's input, by path. Up to `limit_bytes` of them are
    stored with the items, so that later turns read the same content."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._kept: dict[str, JsonObject] = {}

    @property
    def has_room(self) -> bool:
        """True if the limit is not reached."""
        return self._left > 0

    def add(self, where: str, file: WebFile) -> None:
        """Adds a fetched file; `where` is the path of its part."""
        if len(file.content) <= self._left:
            self._left -= len(file.content)
            data = base64.b64encode(file.content).decode()
            self._kept[where] = {"name": file.name, "media_type": file.media_type, "data": data}

    def kept_in(self, items: Sequence[JsonObject], where: str) -> list[JsonObject]:
        """Returns the items of the list `where` with their fetched files."""
        if not self._kept:
            return list(items)
        return [self._item(item, f"{where}[{place}]") for place, item in enumerate(items)]

    def _item(self, item: JsonObject, where: str) -> JsonObject:
        for name in _LISTS:
            places = [f"{where}.{name}[{at}]" for at in range(len(_parts(item, name)))]
            if any(place in self._kept for place in places):
                pairs = zip(places, item[name], strict=True)
                item = {**item, name: [self._part(part, place) for place, part in pairs]}
        return item

    def _part(self, part: Any, where: str) -> Any:
        return {**part, _FETCHED: self._kept[where]} if where in self._kept else part


def has_fetched(part: object) -> bool:
    """True if the part has a file that was fetched in an earlier turn."""
    return isinstance(part, Mapping) and _FETCHED in part


def fetched_file(part: Part) -> WebFile:
    """Returns the fetched file of a part."""
    kept = part[_FETCHED]
    content = base64.b64decode(kept["data"])
    return WebFile(name=kept["name"], media_type=kept["media_type"], content=content)


def without_fetched(item: Part) -> JsonObject:
    """Returns the item without fetched files, as clients see it."""
    shown = dict(item)
    for name in _LISTS:
        parts = _parts(item, name)
        if any(map(has_fetched, parts)):
            shown[name] = [bare_part(part) if has_fetched(part) else part for part in parts]
    return shown


def bare_part(part: Part) -> JsonObject:
    """Returns the part without its fetched file, as clients see it."""
    return {name: value for name, value in part.items() if name != _FETCHED}


def refuse_too_many(items: Sequence[Part], where: str, limit: int) -> None:
    """Raises `InvalidRequest` for the first file or image beyond `limit`."""
    found = 0
    for place, item in enumerate(items):
        for name in _LISTS:
            for at, part in enumerate(_parts(item, name)):
                found += isinstance(part, Mapping) and part.get("type") in _FILES
                if found > limit:
                    raise InvalidRequest(
                        f"There are more files and pictures than the {limit} that one request may "
                        "have (`input_files_limit`).",
                        param=f"{where}[{place}].{name}[{at}]",
                    )


async def with_parts_read(
    items: Sequence[JsonObject],
    where: str | None,
    is_meant: Callable[[object], bool],
    read: Callable[[Part, str], Awaitable[JsonObject]],
) -> list[JsonObject]:
    """Returns the items with each part for which `is_meant` holds replaced by `read(part, path)`.
    `where` is the path of their list, None for items of earlier turns."""
    read_items = list(items)
    for place, name in await offload(_lists_with, items, is_meant):
        at = "input" if where is None else f"{where}[{place}]"
        parts = await _read(_parts(items[place], name), f"{at}.{name}", is_meant, read)
        read_items[place] = {**read_items[place], name: parts}
    return read_items


def _lists_with(items: Sequence[Part], is_meant: Callable[[object], bool]) -> list[tuple[int, str]]:
    """Returns item index and field name of each list with a part for which `is_meant` holds."""
    return [
        (place, name)
        for place, item in enumerate(items)
        for name in _LISTS
        if any(map(is_meant, _parts(item, name)))
    ]


async def _read(
    parts: Sequence[Any],
    where: str,
    is_meant: Callable[[object], bool],
    read: Callable[[Part, str], Awaitable[JsonObject]],
) -> list[Any]:
    return [
        await read(part, f"{where}[{place}]") if is_meant(part) else part
        for place, part in enumerate(parts)
    ]


def _parts(item: Part, name: str) -> Sequence[Any]:
    parts = item.get(name)
    return parts if isinstance(parts, list) else ()
