"""Observer of a relayed chat's bytes, for storing its completion (pure)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from llm_backend import exact_json
from llm_backend.controllers.relay.answer_observer import OBSERVED_BYTES, AnswerObserver
from llm_backend.controllers.rendering.chat_fold import ChatFold, TextFastPath
from llm_backend.errors import UpstreamFailed
from llm_backend.json_types import JsonObject
from llm_backend.sse import Decoder

_PARTS = re.compile(rb'(data: \{[^\r\n]*"content" ?: ?")((?:[^"\\\r\n]|\\.)*)("[^\r\n]*\})')
_SAMPLE_TEXT = "?"
_EVENT_BYTES = 4096  # longest event in which the text is searched, which takes time


class EventTemplate:
    """Template of stream events that differ in a text only: the bytes before and after their text.

    Nearly all events of a chat's stream have a piece of text and repeat the rest. The bytes before
    and after the text of one event are parsed once. An event with the same bytes there has the same
    fields, if the bytes between them are the inside of a JSON string.
    """

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._common_bytes = len(before) + len(after)

    @classmethod
    def of(cls, event: bytes, chunk: Mapping[str, Any]) -> Self | None:
        """Returns the template of an event that encodes this chunk, as one line without its end.
        The chunk's only choice has a text and nothing else. None if the bytes are ambiguous.
        """
        parts = _PARTS.fullmatch(event) if len(event) <= _EVENT_BYTES else None
        if parts is None:
            return None
        before, _, after = parts.groups()
        try:
            parsed = orjson.loads(before[6:] + _SAMPLE_TEXT.encode() + after)
        except orjson.JSONDecodeError:
            return None
        return cls(before, after) if parsed == _with_text(chunk, _SAMPLE_TEXT) else None

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


@dataclass(frozen=True, kw_only=True)
class _EventFastPath:
    """Fast path for events that differ only in text, valid while `text_path` is the fold's."""

    text_path: TextFastPath
    template: EventTemplate


class ChatObserver(AnswerObserver):
    """Parses a copy of a relayed chat's answer."""

    def __init__(self, limit_bytes: int = OBSERVED_BYTES) -> None:
        super().__init__(limit_bytes)
        self._whole: JsonObject | None = None
        self._whole_bytes = 0  # of the body that was parsed last
        self._events = Decoder(limit_bytes)
        self._fold = ChatFold()
        self._fast_path: _EventFastPath | None = None
        self._has_chunks = False
        self._is_done = False
        self._is_broken = False

    @property
    def is_complete(self) -> bool:
        """True if the whole answer was parsed and it is not an error."""
        if self.is_overlong or self._is_broken:
            return False
        if self._is_stream:
            return self._has_chunks and (self._is_done or self._fold.is_finished)
        return self._read_whole() is not None

    def completion(self) -> JsonObject | None:
        """Returns the completion, or the part received; None if nothing can be stored."""
        if not self._is_stream:
            return _writable(self._read_whole())
        return _writable(self._fold.completion()) if self._has_chunks else None

    def _feed_events(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n\n")
        try:
            for line in lines:
                if not self._append_text(line):
                    self._feed_event(line)
            for event in self._events.feed(rest):
                self._add_event(event.data)
        except UpstreamFailed:
            self.is_overlong = True

    def _append_text(self, line: bytes) -> bool:
        """Appends the event's text and returns True if the event differs from the previous one only
        in its text."""
        text_path, event_path = self._fold.fast_path, self._fast_path
        if event_path is None or text_path is None or event_path.text_path is not text_path:
            return False
        text = event_path.template.text_of(line) if self._events.is_between_events else None
        if text is None:
            return False
        text_path.texts.append(text)
        return True

    def _feed_event(self, line: bytes) -> None:
        """Parses the bytes before an empty line, most often a whole event."""
        is_whole = self._events.is_between_events
        chunk = None
        for event in self._events.feed(line + b"\n\n"):
            chunk = self._add_event(event.data)
        text_path = self._fold.fast_path
        if is_whole and chunk is not None and text_path is not None:
            template = EventTemplate.of(line, chunk)
            self._fast_path = None
            if template is not None:
                self._fast_path = _EventFastPath(text_path=text_path, template=template)

    def _add_event(self, data: str) -> JsonObject | None:
        if data == "[DONE]":
            self._is_done = True
            return None
        chunk = exact_json.parse_object(data)
        if chunk is None or chunk.get("error"):
            self._is_broken = True
        elif "choices" in chunk:
            self._has_chunks = True
            self._fold.add(chunk)
        return chunk

    def _read_whole(self) -> JsonObject | None:
        if self._whole_bytes != self.fed_bytes:
            self._whole_bytes = self.fed_bytes
            body = exact_json.parse_object(self.body or b"")
            self._whole = body if body is not None and _is_completion(body) else None
        return self._whole


def _is_completion(body: JsonObject) -> bool:
    """True for a body in the shape of a completion; the content of messages is not checked."""
    choices = body.get("choices")
    return isinstance(choices, list) and all(
        isinstance(one, dict) and isinstance(one.get("message") or {}, dict) for one in choices
    )


def _writable(completion: JsonObject | None) -> JsonObject | None:
    """Returns the completion; None if it can be parsed but not written, with over 250 levels."""
    try:
        exact_json.dumps(completion)
    except orjson.JSONEncodeError:
        return None
    return completion
