"""`obfuscation`: random characters beside each piece of a stream, so that who sees how much
travels, and not what, does not learn how long each piece is.
"""

import base64
import os
from collections.abc import Mapping
from typing import Any

import orjson

from llm_backend.backends.base import ChatDelta

__all__ = ["Obfuscation", "obfuscation_for"]

Json = dict[str, Any]

BLOCK = 16  # bytes: nearly all pieces are shorter, and so of one size with what stands beside them
_STOCK_BYTES = 3072  # of randomness at a time: one call for some hundred events
_QUOTES = 2


def obfuscation_for(options: Mapping[str, Any] | None, *, usual: bool) -> "Obfuscation | None":
    """What a stream with these `stream_options` has beside its pieces; `usual` is meant where they
    leave it open."""
    wanted = (options or {}).get("include_obfuscation")
    return Obfuscation() if (usual if wanted is None else wanted) else None


class Obfuscation:
    """The random characters of one stream: beside each piece as many as make both together a
    multiple of `BLOCK` bytes. There is always one at least."""

    def __init__(self) -> None:
        self._stock = b""
        self._used = 0

    def beside(self, size: int) -> bytes:
        """The characters beside a piece of so many bytes."""
        number = BLOCK - size % BLOCK
        if self._used + number > len(self._stock):
            self._stock, self._used = base64.urlsafe_b64encode(os.urandom(_STOCK_BYTES)), 0
        begin, self._used = self._used, self._used + number
        return self._stock[begin : self._used]

    def beside_text(self, encoded: bytes) -> bytes:
        """The same for a text as JSON writes it."""
        return self.beside(len(encoded) - _QUOTES)

    def with_event(self, event: Json) -> Json:
        """An event of a response, with characters beside its `delta` if it has one."""
        delta = event.get("delta")
        if not isinstance(delta, str):
            return event
        return {**event, "obfuscation": self.beside_text(orjson.dumps(delta)).decode()}

    def with_chunk(self, chunk: Json, delta: ChatDelta | None = None) -> Json:
        """A chunk of a chat that says this."""
        said = () if delta is None else (
            delta.content,
                delta.refusal, delta.reasoning, *(call.arguments for call in delta.tool_calls)
        )  # fmt: skip
        size = sum(len(orjson.dumps(text)) - _QUOTES for text in said)
        return {**chunk, "obfuscation": self.beside(size).decode()}

    def with_text(self, chunk: Json, text: str) -> Json:
        """A chunk of a completion that says this."""
        return {**chunk, "obfuscation": self.beside_text(orjson.dumps(text)).decode()}
