"""Translation of a decision's input to chat messages, and of its parts to text and images. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_backend.backends.base import Message
from llm_backend.backends.local.media import Content, Image, MediaPart
from llm_backend.controllers.generation.flat_messages import flatten_messages
from llm_backend.controllers.response_items.items import messages_from
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject

# OpenAI's bounds of JSON in an input or a question.
JSON_DEPTH, JSON_VALUES, JSON_BYTES = 32, 10_000, 256 * 1024

_CALLS = {
    "function_call_output": "function_call",
    "custom_tool_call_output": "custom_tool_call",
}


def messages_of(value: str | Sequence[JsonMapping]) -> list[Message]:
    """Returns the messages of an input. Raises `InvalidRequest` with the path of an invalid part,
    or of a tool output without its call."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not value:
        raise InvalidRequest("`input` must not be an empty list.", param="input")
    _check_calls(value)
    items = [_with_json_as_text(item, f"input[{index}]") for index, item in enumerate(value)]
    return flatten_messages(messages_from((), items))


def content_of(parts: str | Sequence[JsonMapping], where: str) -> Content:
    """Returns the content of a question's instructions, whose path is `where`."""
    if isinstance(parts, str):
        return parts
    pieces = [_piece(part, f"{where}[{index}]") for index, part in enumerate(parts)]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    return "\n".join(texts) if len(texts) == len(pieces) else pieces


def _piece(part: JsonMapping, where: str) -> str | MediaPart:
    match part["type"]:
        case "input_image":
            detail = part.get("detail") or "auto"
            return Image(url=part["image_url"], detail=detail, param=f"{where}.image_url")
        case "input_json":
            return _json_text(part["data"], f"{where}.data")
        case _:
            return str(part["text"])


def _check_calls(items: Sequence[JsonMapping]) -> None:
    """Raises `InvalidRequest` for a tool output without an earlier call of its id."""
    calls: set[tuple[str, str]] = set()
    for index, item in enumerate(items):
        kind = item.get("type", "message")
        if kind in _CALLS.values():
            calls.add((kind, item["call_id"]))
        if kind in _CALLS and (_CALLS[kind], item["call_id"]) not in calls:
            raise InvalidRequest(
                f"No `{_CALLS[kind]}` before this output has its `call_id`.",
                param=f"input[{index}].call_id",
            )


def _with_json_as_text(item: JsonMapping, where: str) -> JsonObject:
    """Returns the item with its type, and with text parts in place of JSON parts."""
    content = item.get("content")
    typed = {"type": "message", **item}
    if not isinstance(content, list):
        return _with_text_part(typed)
    parts = [
        {"type": "input_text", "text": _json_text(part["data"], f"{where}.content[{index}].data")}
        if part["type"] == "input_json"
        else part
        for index, part in enumerate(content)
    ]
    return {**typed, "content": parts}


def _with_text_part(item: JsonObject) -> JsonObject:
    """Returns the item with the text of a message as a part."""
    if isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        return {**item, "content": [{"type": kind, "text": item["content"]}]}
    return item


def _json_text(data: Any, where: str) -> str:
    """Returns JSON as text. Raises `InvalidRequest` if it is too deep or too long, or a list of
    anything but objects."""
    if isinstance(data, list) and not all(isinstance(one, Mapping) for one in data):
        raise InvalidRequest("`data` must be an object, or a list of objects.", param=where)
    for values, depth in enumerate(_depths(data), start=1):
        if depth > JSON_DEPTH or values > JSON_VALUES:
            raise InvalidRequest(
                f"JSON may have at most {JSON_DEPTH} levels and {JSON_VALUES} values.", param=where
            )
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode(errors="replace")) > JSON_BYTES:
        raise InvalidRequest(f"JSON may have at most {JSON_BYTES} bytes.", param=where)
    return text


def _depths(data: Any) -> Iterator[int]:
    """Yields the depth of each value: the number of containers around it, itself included."""
    unread = [(data, 0)]
    while unread:
        value, depth = unread.pop()
        children: Sequence[Any] = ()
        if isinstance(value, Mapping):
            children = list(value.values())
        elif isinstance(value, list):
            children = value
        depth += isinstance(value, Mapping | list)
        yield depth
        unread += [(child, depth) for child in children]
