"""Validation of an upstream's answer: JSON or events, as the document describes (pure).

The kind is detected from the body's beginning, not from `Content-Type`, which is often wrong.
"""

import json
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

import orjson

from llm_backend.backends.upstream.content_coding import decode_with
from llm_backend.errors import UpstreamFailed

_JSON, _EVENTS, _HTML = "application/json", "text/event-stream", "text/html"
_JSON_STARTS = (b"{", b"[")
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_START = max(map(len, _EVENT_STARTS))
_BEFORE = b" \t\r\n\xef\xbb\xbf"  # blanks and a byte order mark
_NO_CONTENT = 204


@dataclass(frozen=True, kw_only=True)
class AnswerKinds:
    """Kinds of body that a successful answer may have: `json` and `events`. If both are False, any
    body is permitted except an HTML page, and with `html` this one, too."""

    json: bool = False
    events: bool = False
    html: bool = False

    @property
    def is_validated(self) -> bool:
        """True if the kind is validated by the body's bytes."""
        return self.json or self.events

    def requires_body(self, method: str, status: int) -> bool:
        """Returns True if an answer with this status must have a body, which is validated."""
        is_good = 200 <= status < 300 and method != "HEAD"
        return is_good and not (method == "DELETE" and status == _NO_CONTENT)


ANY = AnswerKinds(html=True)
JSON_ONLY = AnswerKinds(json=True)
EVENTS_OR_JSON = AnswerKinds(json=True, events=True)


@lru_cache(maxsize=1024)  # operations, each with and without a stream
def answer_kinds_of(described: frozenset[str], *, streams: bool | None) -> AnswerKinds:
    """Returns the kinds that the document's media types of successful answers permit. `streams`:
    events were requested; None: unknown."""
    if not described or not {_HTML, "*/*"}.isdisjoint(described):
        return ANY
    if _JSON not in described or not described <= {_JSON, _EVENTS}:
        return AnswerKinds()
    return AnswerKinds(json=True, events=_EVENTS in described and streams is not False)


class _ValidationState(Enum):
    """State of a body's validation."""

    UNKNOWN = auto()  # only blanks so far
    JSON = auto()  # begins like JSON; validated at its end
    PASSES = auto()  # valid, or too long to be held until its end


class _PlainText:
    """A body without its content coding, from its first character on; about `limit_bytes` of it.

    Separate from `AnswerValidator` to avoid a reference cycle.
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


class AnswerValidator:
    """Validates a body whose `pieces` are held meanwhile: at most `limit_bytes` and one piece, and
    about as much decompressed."""

    def __init__(self, expected: AnswerKinds, *, coding: bytes | None, limit_bytes: int) -> None:
        self._expected = expected
        self._limit_bytes = limit_bytes
        self._text = _PlainText(limit_bytes)
        self._decode = decode_with(self._text.add, coding)
        self.pieces: list[bytes] = []
        self._size_bytes = 0
        self._state = _ValidationState.PASSES if self._decode is None else _ValidationState.UNKNOWN

    def feed(self, piece: bytes) -> None:
        """Adds the next bytes. Raises `UpstreamFailed` if they begin no valid answer."""
        self.pieces.append(piece)
        self._size_bytes += len(piece)
        if self._decode is not None:
            self._decode(piece)
        if self._state is _ValidationState.UNKNOWN:
            self._state = self._classify_start()
        if max(self._size_bytes, self._text.size_bytes) > self._limit_bytes:
            if self._state is _ValidationState.UNKNOWN:
                raise invalid_answer("blanks")
            self._state = _ValidationState.PASSES

    @property
    def passes(self) -> bool:
        """True if no more bytes need validation."""
        return self._state is _ValidationState.PASSES

    def end(self) -> None:
        """Validates the complete body. Raises `UpstreamFailed`."""
        if self.passes:
            return
        if not self._text.start:
            raise invalid_answer("nothing" if not self._size_bytes else "nothing that can be read")
        if self._state is _ValidationState.UNKNOWN or not _is_json(self._text.start):
            raise invalid_answer("something that is not JSON")

    def _classify_start(self) -> _ValidationState:
        start = bytes(self._text.start[:_LONGEST_START])
        if not start:
            return _ValidationState.UNKNOWN
        if self._expected.json and start.startswith(_JSON_STARTS):
            return _ValidationState.JSON
        if self._expected.events and start.startswith(_EVENT_STARTS):
            return _ValidationState.PASSES
        if self._expected.events and any(one.startswith(start) for one in _EVENT_STARTS):
            return _ValidationState.UNKNOWN
        raise invalid_answer("a page" if start.startswith(b"<") else "something that is not JSON")


def invalid_answer(found: str) -> UpstreamFailed:
    """Returns the error for a successful status with an invalid body. The request counts as not
    processed, so that another upstream may be tried."""
    failed = UpstreamFailed(
        f"The upstream answered with {found} where JSON or events were due; its base URL "
        "may be that of something else."
    )
    failed.may_be_processed, failed.is_permanent = False, True
    return failed


def _is_json(text: bytearray) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _is_sloppy_json(text)
    return True


def _is_sloppy_json(text: bytearray) -> bool:
    """Returns True if Python's `json` accepts the text, as clients in Python do: with `NaN` or a
    lone surrogate."""
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        return True  # nested too deep to be validated
    return True
