"""Encoding of chat deltas as stream events, and the transcript for the stored completion.

Nearly all deltas are a few letters of content and nothing else. Encoding them must be cheap: the
API process and the model's threads share the CPU.
"""

from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter

import orjson

from llm_backend.backends.base import ChatDelta
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.obfuscation import Obfuscation
from llm_backend.json_types import JsonMapping
from llm_backend.sse import SimilarEvent, encode

_END = b"}\n\n"  # end of every event
_BEFORE_OBFUSCATION, _AFTER_OBFUSCATION = b',"obfuscation":"', b'"' + _END

_beyond_content = attrgetter(
    *(field.name for field in fields(ChatDelta) if field.name not in {"choice", "content"})
)


class ChatEvents:
    """Encodes deltas as events, and collects them in a transcript. Content alone is put between
    bytes that are encoded once for each choice, and is followed by obfuscation if it is on."""

    def __init__(
        self,
        head: chunks.ChunkHead,
        transcript: "ChatTranscript",
        obfuscation: Obfuscation | None = None,
    ) -> None:
        self._head = head
        self._transcript = transcript
        self._obfuscation = obfuscation
        self._frames: dict[int, tuple[bytes, bytes]] = {}  # by choice

    def encode_delta(self, delta: ChatDelta) -> bytes:
        """Encodes one delta."""
        if not self._transcript.add(delta):
            return self._render(delta)
        frame = self._frames.get(delta.choice)
        if frame is None:
            self._frames[delta.choice] = self._frame(delta.choice)
            return self._render(delta)
        text = orjson.dumps(delta.content)
        if self._obfuscation is None:
            return SimilarEvent(frame[0] + text + frame[1])
        return SimilarEvent(
            frame[0] + text + frame[1] + self._obfuscation.text_padding(text) + _AFTER_OBFUSCATION
        )

    def encode_role_chunk(self, chunk: JsonMapping) -> bytes:
        """Encodes the first chunk of a choice."""
        return self._encode(chunk, None)

    def _render(self, delta: ChatDelta) -> bytes:
        return self._encode(chunks.chat_chunk(self._head, delta), delta)

    def _encode(self, chunk: JsonMapping, delta: ChatDelta | None) -> bytes:
        if self._obfuscation is not None:
            chunk = self._obfuscation.with_chunk(chunk, delta)
        return encode(orjson.dumps(chunk))

    def _frame(self, choice: int) -> tuple[bytes, bytes]:
        """Returns the bytes before and after the content. Quotes inside JSON strings are escaped,
        so the pattern that is searched for cannot occur elsewhere."""
        name, mark = b'"content":', "-"
        delta = ChatDelta(choice=choice, content=mark)
        event = encode(orjson.dumps(chunks.chat_chunk(self._head, delta)))
        before, _, after = event.partition(name + orjson.dumps(mark))
        if self._obfuscation is not None:
            after = after.removesuffix(_END) + _BEFORE_OBFUSCATION
        return before + name, after


class ChatTranscript:
    """Collects the deltas of one answer. Consecutive content of a choice is joined."""

    def __init__(self) -> None:
        self._deltas: list[ChatDelta] = []
        self._contents: dict[int, list[str]] = {}  # by choice: latest content, not joined yet

    def add(self, delta: ChatDelta) -> bool:
        """Adds a delta; returns True if it has content and nothing else."""
        if delta.content != "" and not any(_beyond_content(delta)):
            self._contents.setdefault(delta.choice, []).append(delta.content)
            return True
        self._deltas += self._join_content(delta.choice)
        self._deltas.append(delta)
        return False

    def deltas(self) -> list[ChatDelta]:
        """Returns all deltas so far, in order within each choice."""
        for choice in list(self._contents):
            self._deltas += self._join_content(choice)
        return self._deltas

    def _join_content(self, choice: int) -> Iterator[ChatDelta]:
        if contents := self._contents.pop(choice, None):
            yield ChatDelta(choice=choice, content="".join(contents))
