"""Stream obfuscation (`obfuscation`): random characters beside each delta, so that an observer of
the encrypted traffic cannot learn the length of each piece.
"""

import base64
import os

import orjson

from llm_backend.backends.base import ChatDelta
from llm_backend.json_types import JsonMapping, JsonObject

BLOCK = 16  # bytes: nearly all pieces are shorter, and so padded to one size
_STOCK_BYTES = 3072  # random bytes at a time: one system call for some hundred events
_QUOTES = 2


def obfuscation_for(options: JsonMapping | None, *, default: bool) -> "Obfuscation | None":
    """Returns the obfuscation of a stream with these `stream_options`, or None;
    `default` holds if they are silent about it."""
    requested = (options or {}).get("include_obfuscation")
    return Obfuscation() if (default if requested is None else requested) else None


class Obfuscation:
    """Random padding of one stream: each piece and its padding are a multiple of `BLOCK` bytes
    long. There is always at least one character of padding."""

    def __init__(self) -> None:
        self._random = b""
        self._used = 0

    def padding(self, size: int) -> bytes:
        """Returns the padding of a piece with this size in bytes."""
        number = BLOCK - size % BLOCK
        if self._used + number > len(self._random):
            self._random, self._used = base64.urlsafe_b64encode(os.urandom(_STOCK_BYTES)), 0
        begin, self._used = self._used, self._used + number
        return self._random[begin : self._used]

    def text_padding(self, encoded: bytes) -> bytes:
        """Returns the padding of a JSON string."""
        return self.padding(len(encoded) - _QUOTES)

    def with_event(self, event: JsonObject) -> JsonObject:
        """Returns an event of a response, with padding beside its `delta` if it has one."""
        delta = event.get("delta")
        if not isinstance(delta, str):
            return event
        return {**event, "obfuscation": self.text_padding(orjson.dumps(delta)).decode()}

    def with_chunk(self, chunk: JsonMapping, delta: ChatDelta | None = None) -> JsonObject:
        """Returns a chunk of a chat with padding for this delta."""
        texts = () if delta is None else (
            delta.content,
                delta.refusal, delta.reasoning, *(call.arguments for call in delta.tool_calls)
        )  # fmt: skip
        size = sum(len(orjson.dumps(text)) - _QUOTES for text in texts)
        return {**chunk, "obfuscation": self.padding(size).decode()}

    def with_text(self, chunk: JsonObject, text: str) -> JsonObject:
        """Returns a chunk of a text completion with padding for this text."""
        return {**chunk, "obfuscation": self.text_padding(orjson.dumps(text)).decode()}
