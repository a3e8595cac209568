"""Tells tool calls from text in a model's output, as it comes.

The markup is the Hermes family's (Qwen, Hermes, the built-in model, many others):

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

A call is given out once its JSON is whole, so what a client gets is always valid; markup that never
becomes a call is given back as the text it was. Pure.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

__all__ = ["ParsedCall", "ToolCallParser"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, kw_only=True)
class ParsedCall:
    """A whole call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class ToolCallParser:
    """Splits one choice's text into plain text and calls: `feed` pieces, then `finish`."""

    def __init__(self) -> None:
        self._held = ""
        self._is_inside = False
        self.found_calls = False

    def feed(self, text: str) -> Iterator[str | ParsedCall]:
        """What these characters make certain: text that no markup can still claim, whole calls."""
        self._held += text
        while True:
            marker = CLOSE if self._is_inside else OPEN
            before, found, after = self._held.partition(marker)
            if not found:
                break
            self._held = after
            if part := self._inside(before) if self._is_inside else self._outside(before):
                yield part
            self._is_inside = not self._is_inside
        if not self._is_inside and (certain := len(self._held) - _overlap(self._held, OPEN)):
            text, self._held = self._held[:certain], self._held[certain:]
            if part := self._outside(text):
                yield part

    def finish(self) -> Iterator[str | ParsedCall]:
        """What is left at the end; a call that lacks only its closing tag still counts."""
        held, self._held = self._held, ""
        if self._is_inside:
            yield self._inside(held, closing="")
        elif part := self._outside(held):
            yield part

    def _outside(self, text: str) -> str:
        # the line breaks between calls are markup, not an answer
        return text.lstrip("\n") if self.found_calls and not text.strip() else text

    def _inside(self, text: str, closing: str = CLOSE) -> str | ParsedCall:
        call = _parse(text)
        if call is None:
            return OPEN + text + closing
        self.found_calls = True
        return call


def _parse(text: str) -> ParsedCall | None:
    try:
        call = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return None
    return ParsedCall(
        id=f"call_{uuid.uuid4().hex[:24]}",
        name=call["name"],
        arguments=orjson.dumps(arguments).decode(),
    )


def _overlap(text: str, marker: str) -> int:
    """How many characters at the end of `text` may begin `marker`."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
