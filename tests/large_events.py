"""The largest events that a realtime session takes."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

_CALL = {"type": "function_call", "name": "f", "arguments": ""}
_MANY = 40_000


def _create(part: dict[str, Any], number: int = 1) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [part] * number}
    return {"type": "conversation.item.create", "item": item}


def _update(**fields: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **fields}}


def _many_items() -> dict[str, Any]:
    response = {"conversation": "none", "output_modalities": ["text"], "input": [_CALL] * _MANY}
    return {"type": "response.create", "response": response}


EVENTS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "many items of a response": _many_items,
    "many parts of an item": lambda: _create({"type": "input_text", "text": ""}, _MANY),
    "a long text": lambda: _create({"type": "input_text", "text": "a " * 7_500_000}),
    "many tools": lambda: _update(tools=[{"type": "function", "name": "f"}] * _MANY),
    "long instructions": lambda: _update(instructions="a " * 7_500_000),
    "audio": lambda: {
        "type": "input_audio_buffer.append",
        "audio": base64.b64encode(bytes(12_000_000)).decode(),
    },
}
