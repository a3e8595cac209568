"""File and image parts of items, and fetched files, which are stored with their parts. Pure."""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from llm_backend.backends.web_files import WebFile
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import base64_text, offload

Item = JsonMapping
Part = JsonMapping

_LIST_FIELDS = ("content", "output")  # fields of an item that may hold parts
_FILES = ("input_file", "input_image")
_FETCHED = "fetched"  # key of a part that clients neither see nor set


class FetchedFiles:
    """Files fetched for the parts of one request's input, by path. Up to `limit_bytes` of them are
    stored with the items, so that later turns read the same content."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._remaining_bytes = limit_bytes
        self._files: dict[str, JsonObject] = {}

    @property
    def has_room(self) -> bool:
        """True if the limit is not reached."""
        return self._remaining_bytes > 0

    async def add(self, where: str, file: WebFile) -> None:
        """Adds a fetched file, unless it exceeds the limit; `where` is the path of its part."""
        if len(file.content) <= self._remaining_bytes:
            self._remaining_bytes -= len(file.content)
            data = await base64_text(file.content)
            self._files[where] = {"name": file.name, "media_type": file.media_type, "data": data}

    def add_to(self, items: Sequence[JsonObject], where: str) -> list[JsonObject]:
        """Returns the items with their fetched files; `where` is the path of their list."""
        if not self._files:
            return list(items)
        return [self._item(item, f"{where}[{index}]") for index, item in enumerate(items)]

    def _item(self, item: JsonObject, where: str) -> JsonObject:
        for name in _LIST_FIELDS:
            paths = [f"{where}.{name}[{at}]" for at in range(len(_parts(item, name)))]
            if any(path in self._files for path in paths):
                pairs = zip(paths, item[name], strict=True)
                item = {**item, name: [self._part(part, path) for path, part in pairs]}
        return item

    def _part(self, part: Any, where: str) -> Any:
        return {**part, _FETCHED: self._files[where]} if where in self._files else part


def has_fetched(part: object) -> bool:
    """True if the part is stored with a file that was fetched in an earlier turn."""
    return isinstance(part, Mapping) and _FETCHED in part


def fetched_file(part: Part) -> WebFile:
    """Returns the fetched file of a part."""
    fetched = part[_FETCHED]
    content = base64.b64decode(fetched["data"])
    return WebFile(name=fetched["name"], media_type=fetched["media_type"], content=content)


def without_fetched(item: Part) -> JsonObject:
    """Returns the item without fetched files, as clients see it."""
    public = dict(item)
    for name in _LIST_FIELDS:
        parts = _parts(item, name)
        if any(map(has_fetched, parts)):
            public[name] = [bare_part(part) if has_fetched(part) else part for part in parts]
    return public


def bare_part(part: Part) -> JsonObject:
    """Returns the part without its fetched file, as clients see it."""
    return {name: value for name, value in part.items() if name != _FETCHED}


def check_file_count(items: Sequence[Part], where: str, limit: int) -> None:
    """Raises `InvalidRequest` for the first file or image beyond `limit`."""
    count = 0
    for index, item in enumerate(items):
        for name in _LIST_FIELDS:
            for at, part in enumerate(_parts(item, name)):
                count += isinstance(part, Mapping) and part.get("type") in _FILES
                if count > limit:
                    raise InvalidRequest(
                        f"There are more files and images than the {limit} that one request may "
                        "have (`input_files_limit`).",
                        param=f"{where}[{index}].{name}[{at}]",
                    )


async def read_parts(
    items: Sequence[JsonObject],
    where: str | None,
    should_read: Callable[[object], bool],
    read: Callable[[Part, str], Awaitable[JsonObject]],
) -> list[JsonObject]:
    """Returns the items with each part for which `should_read` holds replaced by
    `read(part, path)`. `where` is the path of their list, None for items of earlier turns."""
    read_items = list(items)
    for index, name in await offload(_lists_with, items, should_read):
        at = "input" if where is None else f"{where}[{index}]"
        parts = await _read(_parts(items[index], name), f"{at}.{name}", should_read, read)
        read_items[index] = {**read_items[index], name: parts}
    return read_items


def _lists_with(
    items: Sequence[Part], should_read: Callable[[object], bool]
) -> list[tuple[int, str]]:
    """Returns item index and field name of each list with a part for which `should_read` holds."""
    return [
        (index, name)
        for index, item in enumerate(items)
        for name in _LIST_FIELDS
        if any(map(should_read, _parts(item, name)))
    ]


async def _read(
    parts: Sequence[Any],
    where: str,
    should_read: Callable[[object], bool],
    read: Callable[[Part, str], Awaitable[JsonObject]],
) -> list[Any]:
    return [
        await read(part, f"{where}[{index}]") if should_read(part) else part
        for index, part in enumerate(parts)
    ]


def _parts(item: Part, name: str) -> Sequence[Any]:
    parts = item.get(name)
    return parts if isinstance(parts, list) else ()
