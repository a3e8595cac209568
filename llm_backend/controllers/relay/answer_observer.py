"""Observer of the bytes of a relayed answer, an event stream or one JSON body (pure)."""

import codecs
from abc import ABC, abstractmethod
from typing import ClassVar

OBSERVED_BYTES = 16 * 1024 * 1024

_SPACE = b" \t\r\n"


class AnswerObserver(ABC):
    """Finds out whether an answer is a stream or a body, and keeps the body.

    It is fed the answer's bytes in any pieces, and never raises. It stops after `limit_bytes` and
    sets `is_overlong`; subclasses that keep nothing of streams unset `limits_streams`.
    """

    limits_streams: ClassVar[bool] = True

    def __init__(self, limit_bytes: int = OBSERVED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._body = bytearray()
        self._is_stream: bool | None = None
        self.fed_bytes = 0
        self.is_overlong = False

    def feed(self, chunk: bytes) -> None:
        """Parses the next bytes of the answer."""
        self.fed_bytes += len(chunk)
        is_limited = self.limits_streams or not self._is_stream
        if self.is_overlong or (is_limited and self.fed_bytes > self._limit_bytes):
            self.is_overlong = True
            self._body.clear()
        elif self._is_stream:
            self._feed_events(chunk)
        else:
            self._body += chunk
            if self._is_stream is None:
                self._detect_kind()

    @property
    def is_stream(self) -> bool:
        """True if the answer is an event stream; False while that is unknown."""
        return bool(self._is_stream)

    @property
    def body(self) -> bytes | None:
        """The bytes of a JSON body so far; None for a stream, and for an overlong answer."""
        if self._is_stream or self.is_overlong:
            return None
        return bytes(self._body).lstrip(_SPACE).removeprefix(codecs.BOM_UTF8)

    @abstractmethod
    def _feed_events(self, chunk: bytes) -> None:
        """Parses the next bytes of a stream."""

    def _detect_kind(self) -> None:
        start = bytes(self._body[:64]).lstrip(_SPACE + codecs.BOM_UTF8)
        if start:
            self._is_stream = not start.startswith((b"{", b"["))
            if self._is_stream:
                self._feed_events(bytes(self._body))
                self._body.clear()
