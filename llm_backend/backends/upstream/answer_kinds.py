"""Kinds of answer that an operation's document lets an upstream give, told by their bytes (pure).

A body is told by how it begins and not by its `Content-Type`, which many servers get wrong.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

import orjson

from llm_backend.backends.upstream.headers import plain
from llm_backend.errors import UpstreamFailed

__all__ = ["ANY", "EVENTS_OR_JSON", "JSON_ONLY", "Due", "Held", "due_of", "no_answer"]

_JSON, _EVENTS, _PAGE = "application/json", "text/event-stream", "text/html"
_JSON_STARTS = (b"{", b"[")
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_START = max(map(len, _EVENT_STARTS))
_BEFORE = b" \t\r\n\xef\xbb\xbf"  # blanks and a byte order mark
_NO_CONTENT = 204
# The document describes JSON alone, and `response_format` of the form may ask for a text.
_MAYBE_TEXT = frozenset({"createTranscription", "createTranslation"})


@dataclass(frozen=True, kw_only=True)
class Due:
    """What a good answer may be: `json`, `events` or, with neither, anything that is no page
    unless `page` lets it be one."""

    json: bool = False
    events: bool = False
    page: bool = False

    @property
    def is_told_by_bytes(self) -> bool:
        """Whether an answer's bytes tell that it is none."""
        return self.json or self.events

    def has_body(self, method: str, status: int) -> bool:
        """Whether an answer with this status has to have one that is looked at."""
        is_good = 200 <= status < 300 and method != "HEAD"
        return is_good and not (method == "DELETE" and status == _NO_CONTENT)


ANY = Due(page=True)
JSON_ONLY = Due(json=True)
EVENTS_OR_JSON = Due(json=True, events=True)


def due_of(operation_id: str, described: Collection[str], *, streams: bool | None) -> Due:
    """What the document's media types of an operation's good answers let one be. `streams` is
    whether events were asked for; None where that is not known."""
    if not described or not {_PAGE, "*/*"}.isdisjoint(described):
        return ANY
    is_json = _JSON in described and operation_id not in _MAYBE_TEXT
    if not is_json or not set(described) <= {_JSON, _EVENTS}:
        return Due()
    return Due(json=True, events=_EVENTS in described and streams is not False)


class _Seen(Enum):
    """What is known of a body so far."""

    UNKNOWN = auto()  # nothing but blanks has come
    JSON = auto()  # it began so; whether it is can be said at its end
    PASSES = auto()  # an answer, or too long to be held until its end


class _Text:
    """A body without its content coding, from its first character on; about `limit_bytes` of it.

    Not a part of `Held`, which would refer to itself and be left to the garbage collector.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.start = bytearray()
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    def add(self, text: bytes) -> None:
        self.size_bytes += len(text)
        if not self.start:
            text = text.lstrip(_BEFORE)
        if len(self.start) <= self._limit_bytes:
            self.start += text


class Held:
    """The pieces of a body until they are told to be an answer: at most `limit_bytes` and a piece
    of them, and about as much of what they are without their content coding."""

    def __init__(self, due: Due, *, coding: bytes | None, limit_bytes: int) -> None:
        self._due = due
        self._limit_bytes = limit_bytes
        self._text = _Text(limit_bytes)
        self._read = plain(self._text.add, coding)
        self.pieces: list[bytes] = []
        self._held_bytes = 0
        self._seen = _Seen.PASSES if self._read is None else _Seen.UNKNOWN

    def take(self, piece: bytes) -> None:
        """Takes the next bytes; raises `UpstreamFailed` where they begin no answer."""
        self.pieces.append(piece)
        self._held_bytes += len(piece)
        if self._read is not None:
            self._read(piece)
        if self._seen is _Seen.UNKNOWN:
            self._seen = self._told_by_start()
        if max(self._held_bytes, self._text.size_bytes) > self._limit_bytes:
            if self._seen is _Seen.UNKNOWN:
                raise no_answer("blanks")
            self._seen = _Seen.PASSES

    @property
    def passes(self) -> bool:
        """Whether nothing more of it is looked at."""
        return self._seen is _Seen.PASSES

    def end(self) -> None:
        """The body is whole; raises `UpstreamFailed` where it is no answer."""
        if self.passes:
            return
        if not self._text.start:
            raise no_answer("nothing" if not self._held_bytes else "nothing that can be read")
        if self._seen is _Seen.UNKNOWN or not _is_json(self._text.start):
            raise no_answer("something that is no JSON")

    def _told_by_start(self) -> _Seen:
        start = bytes(self._text.start[:_LONGEST_START])
        if not start:
            return _Seen.UNKNOWN
        if self._due.json and start.startswith(_JSON_STARTS):
            return _Seen.JSON
        if self._due.events and start.startswith(_EVENT_STARTS):
            return _Seen.PASSES
        if self._due.events and any(one.startswith(start) for one in _EVENT_STARTS):
            return _Seen.UNKNOWN
        raise no_answer("a page" if start.startswith(b"<") else "something that is no JSON")


def no_answer(said: str) -> UpstreamFailed:
    """The error for an upstream whose good status comes with no answer: it is taken for one that
    has not done anything, so that another may be asked."""
    failed = UpstreamFailed(
        f"The upstream answered with {said} where JSON was due; its base URL may be that of "
        "something else."
    )
    failed.was_sent, failed.is_lasting = False, True
    return failed


def _is_json(text: bytearray) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _is_sloppy_json(text)
    return True


def _is_sloppy_json(text: bytearray) -> bool:
    """Whether Python's own reader takes it, as its clients do: `NaN`, half of a surrogate pair."""
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        return True  # too deep to be told
    return True
