"""Server-sent events, and JSON lines as Ollama sends them: encoders of one event, and decoders of
streams that arrive in chunks of any size."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from llm_backend.error_bodies import error_body_for, speaks_messages, speaks_ollama
from llm_backend.errors import ApiError, UpstreamFailed

DONE = b"data: [DONE]\n\n"

NDJSON = "application/x-ndjson"
"""Media type of a stream of JSON objects, one a line."""

LONG_EVENT_BYTES = 1024 * 1024
"""Length beyond which checking or sending an event takes milliseconds."""

_EVENT_PIECE_BYTES = 256 * 1024


class SimilarEvent(bytes):
    """A whole event that differs from an earlier one of its stream only in free text: checks of the
    earlier one hold for this one too.
    """


class EventPiece(bytes):
    """A piece of an event that is too long to be checked or sent in one piece."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of a stream; `name` is None if it has no `event` field."""

    data: str
    name: str | None = None


def encode(data: bytes, name: str | None = None) -> bytes:
    """Encodes one event with a single line of data, such as JSON without indentation."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return b"".join((head, b"data: ", data, b"\n\n"))


def split_long(event: bytes) -> Iterator[bytes]:
    """Yields an event whole or, if it is long, in pieces, between which other requests can run."""
    if len(event) <= LONG_EVENT_BYTES:
        yield event
        return
    for start in range(0, len(event), _EVENT_PIECE_BYTES):
        yield EventPiece(event[start : start + _EVENT_PIECE_BYTES])


def encode_error(path: str, error: ApiError) -> bytes:
    """Encodes the error event, or line, of a stream at a path."""
    if speaks_ollama(path):
        return orjson.dumps(error_body_for(path, error)) + b"\n"
    name = "error" if speaks_messages(path) else None
    return encode(orjson.dumps(error_body_for(path, error)), name)


class Decoder:
    """Decodes an event stream incrementally: `feed` takes chunks of any size, and yields whole
    events.

    It buffers at most `limit_bytes` of an unfinished event, and raises `UpstreamFailed` beyond
    that. It follows the WHATWG framing: CR, LF or CRLF ends a line, and an empty line ends an
    event. A leading byte order mark is ignored. An unfinished event at the end of the stream is
    dropped.
    """

    def __init__(self, limit_bytes: int = 16 * 1024 * 1024) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._is_first_line = True
        self._after_cr = False
        self._data: list[str] = []
        self._name: str | None = None
        self._buffered_bytes = 0

    @property
    def is_between_events(self) -> bool:
        """True if no part of an event is buffered."""
        return not self._line and not self._data and self._name is None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yields the events that this chunk completes; the iterator must be exhausted."""
        if not chunk:
            return
        if self._is_one_event(chunk):
            self._is_first_line = self._after_cr = False
            yield Event(data=chunk[6:-2].decode("utf-8", errors="replace"))
            return
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the LF of a CRLF whose CR has ended the line already
        self._after_cr = chunk.endswith(b"\r")
        *lines, remainder = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for part in lines:
            self._line += part
            line, self._line = bytes(self._line), bytearray()
            if line:
                self._parse_line(line)
            elif event := self._finish():
                yield event
            self._is_first_line = False
        self._line += remainder
        if self._buffered_bytes + len(self._line) > self._limit_bytes:
            raise UpstreamFailed("The stream held an event over the size limit.")

    def _is_one_event(self, chunk: bytes) -> bool:
        """True if the chunk is one whole event of one line, as most chunks are."""
        is_line = chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")
        return self.is_between_events and is_line and chunk.count(b"\n") == 2 and b"\r" not in chunk

    def _parse_line(self, line: bytes) -> None:
        if self._is_first_line:
            line = line.removeprefix(codecs.BOM_UTF8)
        field, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._buffered_bytes += len(line)
        elif field == "event":
            self._name = value or None

    def _finish(self) -> Event | None:
        event = Event(data="\n".join(self._data), name=self._name) if self._data else None
        self._data, self._name, self._buffered_bytes = [], None, 0
        return event


class LineDecoder:
    """Decodes a stream of lines incrementally, as `Decoder` does an event stream; for streams of
    this server, whose lines are bounded."""

    def __init__(self) -> None:
        self._line = b""

    @property
    def is_between_events(self) -> bool:
        """True if no part of a line is buffered."""
        return not self._line

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yields the lines that this chunk completes; the iterator must be exhausted."""
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in lines:
            yield Event(data=line.decode("utf-8", errors="replace"))
