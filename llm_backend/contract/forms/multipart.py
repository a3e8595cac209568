"""Streaming parser of multipart/form-data: yields the heads and the bytes of parts as events."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from llm_backend.errors import InvalidRequest

_PARTS_LIMIT = 100  # more than the fields of any form of the document
_UNENCODED = frozenset({"", "binary", "8bit", "7bit"})


@dataclass(frozen=True, kw_only=True)
class PartBegan:
    """Head of a part; `filename` is None for a plain field."""

    name: str
    filename: str | None
    media_type: str


@dataclass(frozen=True)
class PartEnded:
    """End of a part: no more bytes of it follow."""


Event: TypeAlias = PartBegan | bytes | PartEnded


def boundary_of(content_type: str) -> bytes:
    """Returns the boundary from the content type; raises `InvalidRequest` if it is missing."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046
        raise _malformed_form("its content type names no boundary of 1 to 70 characters")
    return boundary


async def events(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Event]:
    """Yields the events of a body. Raises `InvalidRequest` if it is malformed."""
    parts = Parts(boundary)
    async for piece in body:
        for event in parts.read(piece):
            yield event
    if not parts.has_ended:
        raise _malformed_form("it ends before its closing boundary")


class Parts:
    """Incremental parser: turns pieces of a body into events."""

    def __init__(self, boundary: bytes) -> None:
        reader = self._reader = _PartCollector()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.head_end,
                "on_part_data": reader.data,
                "on_part_end": reader.part_end,
                "on_end": reader.end,
            },
        )

    @property
    def has_ended(self) -> bool:
        """True if the closing boundary has been read."""
        return self._reader.has_ended

    def read(self, piece: bytes) -> list[Event]:
        """Returns the events that this piece completes. Raises `InvalidRequest`."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _malformed_form(str(error)) from error
        events_read, self._reader.events_read = self._reader.events_read, []
        return events_read


@dataclass(kw_only=True)
class _PartCollector:
    """Callbacks of the parser, collected as a list of events."""

    events_read: list[Event] = field(default_factory=list)
    has_ended: bool = False
    parts: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""

    def begin(self) -> None:
        self.headers = {}
        self.parts += 1
        if self.parts > _PARTS_LIMIT:
            raise InvalidRequest(f"The form has more than {_PARTS_LIMIT} parts.")

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        try:
            self.headers[self.name.decode("ascii").lower()] = self.value.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise _malformed_form("a part's headers are not UTF-8") from None
        self.name = self.value = b""

    def head_end(self) -> None:
        self.events_read.append(_head(self.headers))

    def data(self, data: bytes, start: int, end: int) -> None:
        self.events_read.append(data[start:end])

    def part_end(self) -> None:
        self.events_read.append(PartEnded())

    def end(self) -> None:
        self.has_ended = True


def _head(headers: dict[str, str]) -> PartBegan:
    kind, options = _options(headers.get("content-disposition", ""))
    if kind != "form-data" or "name" not in options:
        raise _malformed_form("a part has no `Content-Disposition: form-data` with a name")
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _UNENCODED:
        raise _malformed_form(f"a part's transfer encoding is {encoding[:32]!r}; send it as it is")
    return PartBegan(
        name=options["name"],
        filename=options.get("filename"),
        media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
    )


def _options(value: str) -> tuple[str, dict[str, str]]:
    """Parses a header in UTF-8 into value and options; the library encodes it as Latin-1."""
    kind, options = parse_options_header(value.encode().decode("latin-1"))
    try:
        return kind.decode(), {name.decode(): text.decode() for name, text in options.items()}
    except UnicodeDecodeError:
        raise _malformed_form("a part's headers are not UTF-8") from None


def _malformed_form(why: str) -> InvalidRequest:
    message = f"The body is not valid multipart/form-data: {why[:200]}."
    return InvalidRequest(message, code="invalid_multipart")
