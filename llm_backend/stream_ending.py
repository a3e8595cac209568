"""Detects the end of an answer, and encodes the error event of a broken stream (no I/O)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llm_backend.errors import ApiError
from llm_backend.sse import NDJSON, encode_error

Headers = Iterable[tuple[bytes, bytes]]

_EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
_TAIL_BYTES = 32
_DONE = re.compile(rb"[\r\n]data: ?\[DONE\]")  # JSON strings contain no line breaks


class StreamEnding:
    """Detects the end of an answer in its bytes, and makes the error event of one that breaks off.

    `headers` are the answer's, with names in lower case; `path` is the request's.
    """

    def __init__(self, headers: Headers, path: str) -> None:
        self._path = path
        first: dict[bytes, bytes] = {}
        for name, value in headers:
            first.setdefault(name, value)
        kind = first.get(b"content-type", b"").partition(b";")[0].strip().lower()
        length = first.get(b"content-length")
        self._is_stream = kind == b"text/event-stream"
        self._has_lines = kind == NDJSON.encode()
        is_plain = b"content-encoding" not in first
        self._can_append = length is None and is_plain
        self.is_readable = is_plain and (self._is_stream or kind == b"application/json")
        self._missing_bytes = int(length) if length is not None and length.isdigit() else None
        self._tail = b""

    @property
    def has_length(self) -> bool:
        """True if `Content-Length` determines the end."""
        return self._missing_bytes is not None

    def feed(self, chunk: bytes) -> bool:
        """Adds a chunk; returns True if the answer is complete by its length or `[DONE]`."""
        self._tail = _end_of(self._tail, chunk)
        if self._missing_bytes is not None:
            self._missing_bytes -= len(chunk)
            return self._missing_bytes <= 0
        return self._is_stream and _DONE.search(self._tail[-_TAIL_BYTES:]) is not None

    def error_event(self, error: ApiError) -> bytes | None:
        """Returns the error event, or line, that ends a stream; None if none can be sent."""
        if not (self._is_stream or self._has_lines) or not self._can_append:
            return None
        ends = b"\n" if self._has_lines else _EVENT_ENDS
        event = encode_error(self._path, error)
        if not self._tail or self._tail.endswith(ends):
            return event
        return (b"\n" if self._has_lines else b"\n\n") + event


class SentAnswer:
    """Tracks the ASGI messages of an answer, for a caller that may have to abort it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._headers: Headers | None = None
        self._tail = b""
        self._is_over = False

    @property
    def has_begun(self) -> bool:
        """True if the status has been sent."""
        return self._headers is not None

    def record(self, message: Mapping[str, Any]) -> None:
        """Records the next message."""
        if message["type"] == "http.response.start":
            self._headers = message["headers"]
            return
        if chunk := message.get("body"):
            self._tail = _end_of(self._tail, chunk)
        self._is_over = not message.get("more_body", False)

    def error_event(self, error: ApiError) -> bytes | None:
        """Returns the error event, or line, that ends the stream. None if the answer has ended, or
        nothing can be appended to it: then its missing end shows that it is incomplete."""
        if self._headers is None or self._is_over:
            return None
        ending = StreamEnding(self._headers, self._path)
        ending.feed(self._tail)
        return ending.error_event(error)


def _end_of(tail: bytes, chunk: bytes) -> bytes:
    """Returns the last bytes of `tail` and `chunk` joined, or more if that saves a copy."""
    return chunk if len(chunk) >= _TAIL_BYTES else tail[-_TAIL_BYTES:] + chunk
