"""Fast comparison of stream events that differ in a text only, by their bytes (pure).

Nearly all events of a chat's stream have a piece of text and repeat the rest. The bytes before and
after the text of one event are parsed once. An event with the same bytes there has the same
fields, if the bytes between them are the inside of a JSON string.
"""

import re
from collections.abc import Mapping
from typing import Any, Self

import orjson

from llm_backend.json_types import JsonObject

_PARTS = re.compile(rb'(data: \{[^\r\n]*"content" ?: ?")((?:[^"\\\r\n]|\\.)*)("[^\r\n]*\})')
_OTHER = "?"
_EVENT_BYTES = 4096  # of events with a piece of text; searching longer ones could take long


class EventDelta:
    """Template of stream events: the bytes before and after their text."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._common_bytes = len(before) + len(after)

    @classmethod
    def of(cls, event: bytes, chunk: Mapping[str, Any]) -> Self | None:
        """Returns the template of an event (one line, without its end) that encodes this chunk,
        whose only choice has a text and nothing else; None if the bytes are ambiguous.
        """
        parts = _PARTS.fullmatch(event) if len(event) <= _EVENT_BYTES else None
        if parts is None:
            return None
        before, _, after = parts.groups()
        try:
            parsed = orjson.loads(before[6:] + _OTHER.encode() + after)
        except orjson.JSONDecodeError:
            return None
        return cls(before, after) if parsed == _with_text(chunk, _OTHER) else None

    def text_of(self, event: bytes) -> str | None:
        """Returns the text of an event that matches the template; None for others."""
        is_alike = event.startswith(self._before) and event.endswith(self._after)
        if not is_alike or len(event) < self._common_bytes:
            return None
        inside = event[len(self._before) - 1 : 1 - len(self._after)]  # with its quotation marks
        try:
            text: str = orjson.loads(inside)
        except orjson.JSONDecodeError:
            return None
        return text


def _with_text(chunk: Mapping[str, Any], text: str) -> JsonObject:
    """Returns the chunk with another text."""
    choice = chunk["choices"][0]
    return {**chunk, "choices": [{**choice, "delta": {"content": text}}]}
