"""Conversation of a realtime session: its items in order. Pure but for the ids of new items."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llm_backend.errors import InvalidRequest, NotFound, TooLarge, UnsupportedField
from llm_backend.exact_json import dumps
from llm_backend.json_types import JsonMapping, JsonObject

FIRST = "root"
"""`previous_item_id` that puts an item before all others."""

_ID_CHARACTERS = 64
_PARTS = {
    "user": ("input_text", "input_image", "input_audio"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio"),
}
_TEXT_FIELDS = {
    "input_text": "text",
    "output_text": "text",
    "output_audio": "transcript",
    "input_audio": "transcript",
}
_CALL_FIELDS = ("type", "call_id", "name", "arguments", "output", "status")
_WORDS = re.compile(r"\s*\S+\s*")
_ITEMS = ("message", "function_call", "function_call_output")


def new_item_id() -> str:
    """Returns the id of a new item."""
    return f"item_{uuid.uuid4().hex[:24]}"


def check_item(item: JsonMapping, where: str) -> None:
    """Raises `InvalidRequest` or `UnsupportedField`, naming the field, for an item that local
    models cannot read; `where` is its path."""
    kind = item["type"]
    if kind not in _ITEMS:
        raise UnsupportedField(
            f"Local models cannot read an item of type `{kind}`.", param=f"{where}.type"
        )
    for name in ("id", "call_id"):
        if len(item.get(name) or "") > _ID_CHARACTERS:
            raise InvalidRequest(
                f"An id may have at most {_ID_CHARACTERS} characters.", param=f"{where}.{name}"
            )
    if item.get("id") == FIRST:
        raise InvalidRequest(
            f"An item cannot have the id `{FIRST}`, the `previous_item_id` of the first one.",
            param=f"{where}.id",
        )
    if kind == "message":
        for index, part in enumerate(item["content"]):
            check_part(part, item["role"], f"{where}.content[{index}]")


def check_part(part: JsonMapping, role: str, where: str) -> None:
    """Checks a part of a message; raises as `check_item` does."""
    kind = part.get("type")
    if kind not in _PARTS[role]:
        raise UnsupportedField(
            f"A message of the role `{role}` has parts of type {' or '.join(_PARTS[role])} here.",
            param=f"{where}.type",
        )
    if kind == "input_audio" and isinstance(part.get("audio"), str):
        return
    field = _TEXT_FIELDS.get(kind, "image_url")
    value = part.get(field)
    if not isinstance(value, str) or (field == "image_url" and not value):
        raise InvalidRequest(
            f"A part of type `{kind}` needs `{field}`.",
            param=f"{where}.{field}",
            code="missing_required_parameter",
        )
    if part.get("audio"):
        raise UnsupportedField(
            "Audio of the assistant is not read; send its `transcript`.", param=f"{where}.audio"
        )
    if part.get("file_id"):  # a holder of a client secret would see any image of the project
        raise UnsupportedField(
            "A session reads no files of the project; send the image as `image_url`.",
            param=f"{where}.file_id",
        )


def stored_item(item: JsonMapping) -> JsonObject:
    """Returns the item with an id and a status."""
    stored = {"object": "realtime.item", "status": "completed", **item}
    stored["id"] = item.get("id") or new_item_id()
    if item["type"] == "function_call":
        stored["call_id"] = item.get("call_id") or f"call_{uuid.uuid4().hex[:24]}"
    return stored


def model_input(items: Iterable[JsonMapping]) -> list[JsonObject]:
    """Returns items as the input of `/responses`; messages without text or images are left out. A
    call whose output is missing is marked as interrupted, so that it needs none: people speak while
    a function runs."""
    found = [read for item in items if (read := _input_item(item)) is not None]
    answered = {one["call_id"] for one in found if one["type"] == "function_call_output"}
    for one in found:
        if one["type"] == "function_call" and one["call_id"] not in answered:
            one["status"] = "incomplete"
    return found


@dataclass(kw_only=True)
class SpokenSentence:
    """A sentence of an answer, and the duration of its audio that was sent."""

    text: str
    duration_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class ItemSize:
    """Size of an item as JSON: its bytes, and its nodes, which are values and names of fields."""

    size_bytes: int = 0
    nodes: int = 0

    @classmethod
    def of(cls, item: JsonMapping) -> "ItemSize":
        """Measures an item; slow for a large one."""
        return cls(size_bytes=len(dumps(item)), nodes=_count_nodes(item))


class Conversation:
    """Items of a conversation, of at most `limit_bytes` as JSON and `nodes_limit` values and names
    of fields: a value takes more memory than its bytes."""

    def __init__(self, *, limit_bytes: int, nodes_limit: int) -> None:
        self.id = f"conv_{uuid.uuid4().hex[:24]}"
        self._limit_bytes = limit_bytes
        self._nodes_limit = nodes_limit
        self._items: list[JsonObject] = []
        self._sizes: dict[str, ItemSize] = {}
        self._bytes = self._nodes = 0  # of all items
        self._audio: dict[str, Sequence[SpokenSentence]] = {}
        self._heard_ms: dict[str, int] = {}  # of truncated items

    def __iter__(self) -> Iterator[JsonObject]:
        return iter(self._items)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._sizes

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return self._items[-1]["id"] if self._items else None

    def find(self, item_id: str, param: str = "item_id") -> JsonObject:
        """Returns an item. Raises `NotFound`, which names the field `param`."""
        return self._items[self._index(item_id, param)]

    def id_before(self, item_id: str) -> str | None:
        """Returns the id of the item before an item. Raises `NotFound`."""
        at = self._index(item_id, "item_id")
        return self._items[at - 1]["id"] if at else None

    def add(
        self,
        item: JsonObject,
        previous_item_id: str | None = None,
        *,
        size: ItemSize | None = None,
    ) -> str | None:
        """Adds an item after another, by default after the last, and returns the id of the item
        before it. `size` is given for a large item, which the caller has measured. Raises
        `InvalidRequest`, `NotFound` and `TooLarge`."""
        if item["id"] in self:
            raise InvalidRequest("The conversation has an item with this id.", param="item.id")
        if previous_item_id is None:
            at = len(self._items)
        elif previous_item_id == FIRST:
            at = 0
        else:
            at = self._index(previous_item_id, "previous_item_id") + 1
        if item["type"] == "function_call_output" and not _has_call(
            islice(self._items, at), item["call_id"]
        ):
            raise InvalidRequest(
                "The conversation has no function call with this `call_id` before the item.",
                param="item.call_id",
            )
        size = size or ItemSize.of(item)
        self._check_capacity(size)
        self._items.insert(at, item)
        self._set_size(item["id"], size)
        return self._items[at - 1]["id"] if at else None

    def update(self, item: JsonObject) -> None:
        """Measures a changed item again, after cutting its transcript if it was truncated while it
        was spoken. An item that was deleted meanwhile stays deleted."""
        id = item["id"]
        if id in self._heard_ms:
            text = heard_text(self._audio[id], self._heard_ms[id])
            item["content"] = [{"type": "output_audio", "transcript": text}]
        if id in self:
            self._set_size(id, ItemSize.of(item))

    def add_audio(self, item_id: str, sentences: Sequence[SpokenSentence]) -> None:
        """Stores the spoken sentences of an item, so that it can be truncated, unless it was
        deleted."""
        if item_id in self:
            self._audio[item_id] = sentences

    def truncate(self, item_id: str, end_ms: int) -> None:
        """Cuts the transcript of an answer to the text that was heard until `end_ms`, but not
        before the answer has ended. Raises `NotFound` and `InvalidRequest`."""
        item = self.find(item_id)
        sentences = self._audio.get(item_id)
        if sentences is None:
            raise InvalidRequest("Only a message that was spoken is truncated.", param="item_id")
        has_ended = item["status"] != "in_progress"
        length_ms = sum(one.duration_ms for one in sentences)
        if has_ended:  # a truncated answer has only what was heard
            length_ms = self._heard_ms.get(item_id, length_ms)
        if not 0 <= end_ms <= length_ms:
            raise InvalidRequest(
                f"The audio has {length_ms} ms, so it cannot end at {end_ms} ms.",
                param="audio_end_ms",
            )
        self._heard_ms[item_id] = end_ms
        if has_ended:
            self.update(item)

    def delete(self, item_id: str) -> list[str]:
        """Deletes an item, and the outputs of a deleted call; returns the ids of all of them.
        Raises `NotFound`."""
        item = self._items[self._index(item_id, "item_id")]
        deleted = [item_id]
        if item["type"] == "function_call":
            deleted += [one["id"] for one in self._items if _is_output(one, item["call_id"])]
        for id in deleted:
            self._set_size(id, None)
        self._items = [one for one in self._items if one["id"] in self]
        self._audio.pop(item_id, None)
        self._heard_ms.pop(item_id, None)
        return deleted

    def _check_capacity(self, size: ItemSize) -> None:
        total_bytes, total_nodes = self._bytes + size.size_bytes, self._nodes + size.nodes
        if total_bytes > self._limit_bytes:
            raise TooLarge(
                f"The conversation would have {total_bytes:,} bytes, more than `body_limit_bytes` "
                f"({self._limit_bytes:,}): delete items of it.",
                param="item",
            )
        if total_nodes > self._nodes_limit:
            raise TooLarge(
                f"The conversation would have {total_nodes:,} JSON values and names of fields, "
                f"more than `json_nodes_limit` ({self._nodes_limit:,}): delete items of it.",
                param="item",
            )

    def _set_size(self, id: str, size: ItemSize | None) -> None:
        """Updates the totals by the new size of an item; None removes the item."""
        old, new = self._sizes.pop(id, ItemSize()), size or ItemSize()
        self._bytes += new.size_bytes - old.size_bytes
        self._nodes += new.nodes - old.nodes
        if size is not None:
            self._sizes[id] = size

    def _index(self, item_id: str, param: str) -> int:
        for index, item in enumerate(self._items):
            if item["id"] == item_id:
                return index
        message = f"The conversation has no item `{item_id[:_ID_CHARACTERS]}`."
        raise NotFound(message, param=param, code="item_not_found")


def heard_text(sentences: Iterable[SpokenSentence], end_ms: int) -> str:
    """Returns the text that was heard until `end_ms`. The words of the last sentence are cut in
    proportion to its audio. Later sentences without audio were not heard."""
    heard = ""
    for sentence in sentences:
        if end_ms <= 0:
            break
        if end_ms >= sentence.duration_ms:
            heard += sentence.text
            end_ms -= sentence.duration_ms
            continue
        words = _WORDS.findall(sentence.text)
        heard += "".join(words[: len(words) * end_ms // sentence.duration_ms])
        break
    return heard.rstrip()


def _has_call(items: Iterable[JsonMapping], call_id: str) -> bool:
    return any(one["type"] == "function_call" and one["call_id"] == call_id for one in items)


def _is_output(item: JsonMapping, call_id: str) -> bool:
    return item["type"] == "function_call_output" and bool(item["call_id"] == call_id)


def _input_item(item: JsonMapping) -> JsonObject | None:
    if item["type"] != "message":
        return {name: item[name] for name in _CALL_FIELDS if name in item}
    parts = [read for part in item["content"] if (read := _input_part(part)) is not None]
    return {"type": "message", "role": item["role"], "content": parts} if parts else None


def _input_part(part: JsonMapping) -> JsonObject | None:
    if part["type"] == "input_image":
        detail = part.get("detail") or "auto"
        return {"type": "input_image", "image_url": part["image_url"], "detail": detail}
    text: Any = part.get("transcript") or part.get("text")
    if not text:
        return None
    kind = "output_text" if part["type"].startswith("output_") else "input_text"
    return {"type": kind, "text": text}


def _count_nodes(value: Any) -> int:
    """Counts the values and names of fields in JSON; a list or an object counts as one, too."""
    count, unread = 0, [value]
    while unread:
        one = unread.pop()
        count += 1
        if isinstance(one, Mapping):
            count += len(one)
            unread += one.values()
        elif isinstance(one, list):
            unread += one
    return count
