"""Streaming multipart form: validates fields against the document, never buffers the file.

The client chooses the order of the parts, so a handler reads the file first, as a stream, and then
the fields:

    part = await form.file("file", limit_bytes=...)
    async with blobs.writing(part.pieces) as blob:
        fields = await form.fields()
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from llm_backend.contract.body import check_length
from llm_backend.contract.forms.multipart import Event, PartBegan, PartEnded, boundary_of, events
from llm_backend.contract.parameters import TypedParameter, read_pairs
from llm_backend.contract.validation import Check
from llm_backend.contract.validation_messages import field_name
from llm_backend.errors import InvalidRequest, TooLarge
from llm_backend.json_types import JsonValue

FRAMING_BYTES = 1024 * 1024  # for fields, part headers and boundaries, besides the file
_FIELD_BYTES = 64 * 1024
_NAME_CHARACTERS = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, kw_only=True)
class FormCheck:
    """Schema check and typed parameters of one operation's form."""

    check: Check
    parameters: Mapping[str, TypedParameter]


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A file in a form: its field, its name and media type as sent, and its bytes as a stream.

    `pieces` raises `TooLarge` over the limit, `InvalidRequest` for an empty file or a truncated
    body; it must be read to its end.
    """

    field: str
    filename: str
    media_type: str
    pieces: AsyncIterator[bytes]


class Form:
    """The form of one request, read once from front to back."""

    def __init__(self, http: HttpRequest, form_check: FormCheck) -> None:
        self._http = http
        self._form_check = form_check
        self._events = self._begin()
        self._pairs: list[tuple[str, str]] = []
        self._files: dict[str, str] = {}
        self._shared_limits: dict[str, int] = {}  # bytes of all values of a field together
        self._text_limits: dict[str, int] = {}  # the rest of these bytes

    async def file(
        self, field: str, *, limit_bytes: int, text_limits: Mapping[str, int] | None = None
    ) -> FilePart:
        """Reads up to the file in `field` and returns it; validates the fields before it.
        `text_limits` bounds the bytes of all values of a field together; each value of another
        field has a bound of its own.

        Raises `InvalidRequest` if the form has no such file, `TooLarge` if `Content-Length` is over
        the limit.
        """
        self._shared_limits = dict(text_limits or {})
        self._text_limits = dict(self._shared_limits)
        text_bytes = sum(self._text_limits.values())
        check_length(self._http.headers, limit_bytes + text_bytes + FRAMING_BYTES)
        head = await self._next_file(field)
        if head is None:
            self._check({})
            raise _missing(field)
        return self._begin_file(head, limit_bytes)

    async def files(
        self, fields: Collection[str], *, limit_bytes: int
    ) -> AsyncGenerator[FilePart, None]:
        """Yields the files of these fields in the form's order; the caller reads each one before
        the next. `name[]` is the field `name`. Afterwards `fields` checks the whole form."""
        check_length(self._http.headers, len(fields) * limit_bytes + FRAMING_BYTES)
        while head := await self._next_file(*fields):
            yield self._begin_file(head, limit_bytes)

    async def fields(self) -> Mapping[str, JsonValue]:
        """Reads the form to its end and returns its typed fields. Raises `InvalidRequest`."""
        if head := await self._next_file(*self._files):
            message = f"The form holds '{head.name}' more than once."
            raise InvalidRequest(message, param=head.name)
        return self._check(self._files)

    async def _begin(self) -> AsyncIterator[Event]:
        boundary = boundary_of(self._http.headers.get("content-type", ""))
        async for event in events(self._http.stream(), boundary):
            yield event

    async def _next_file(self, *fields: str) -> PartBegan | None:
        """Collects fields until a file in one of `fields` begins; None at the form's end."""
        async for event in self._events:
            assert isinstance(event, PartBegan), "every part is read to its end"
            if event.name.removesuffix("[]") in fields:
                return event
            self._pairs.append((event.name, await self._text(event.name)))
        return None

    def _begin_file(self, head: PartBegan, limit_bytes: int) -> FilePart:
        field = head.name.removesuffix("[]")
        self._files[field] = ""
        self._check(self._files, is_whole=False)
        return FilePart(
            field=field,
            filename=_filename(head),
            media_type=_media_type(head),
            pieces=self._file_pieces(field, limit_bytes),
        )

    async def _text(self, name: str) -> str:
        buffer, field = bytearray(), name.partition("[")[0]
        limit_bytes = self._text_limits.get(field, _FIELD_BYTES)
        async with aclosing(self._part()) as part:
            async for piece in part:
                buffer += piece
                if len(buffer) > limit_bytes:
                    raise _invalid(name, self._too_long(field))
        if field in self._text_limits:
            self._text_limits[field] -= len(buffer)
        try:
            return buffer.decode("utf-8")
        except UnicodeDecodeError:
            raise _invalid(name, "it is not UTF-8") from None

    def _too_long(self, field: str) -> str:
        if field in self._shared_limits:
            return f"all values together may hold at most {self._shared_limits[field]} bytes"
        return f"a field may hold at most {_FIELD_BYTES} bytes"

    async def _file_pieces(self, field: str, limit_bytes: int) -> AsyncIterator[bytes]:
        size_bytes = 0
        async with aclosing(self._part()) as part:
            async for piece in part:
                size_bytes += len(piece)
                if size_bytes > limit_bytes:
                    message = f"The file is larger than this server's limit of {limit_bytes} bytes."
                    raise TooLarge(message, param=field)
                yield piece
        if size_bytes == 0:
            raise _invalid(field, "the file is empty")

    async def _part(self) -> AsyncGenerator[bytes, None]:
        async for event in self._events:
            if isinstance(event, PartEnded):
                return
            assert isinstance(event, bytes), "a part ends before the next one begins"
            yield event

    def _check(self, files: Mapping[str, str], *, is_whole: bool = True) -> dict[str, JsonValue]:
        """Returns the typed fields. Raises `InvalidRequest`; missing fields are an error only if
        the form `is_whole`."""
        fields = read_pairs(self._pairs, self._form_check.parameters, is_lenient=False)
        try:
            self._form_check.check.check_request({**fields, **files})
        except InvalidRequest as error:
            if is_whole or error.code != "missing_required_parameter":
                raise
        return fields


def _filename(head: PartBegan) -> str:
    if not head.filename:
        raise _invalid(head.name, "the file has no name; send one as `filename`")
    if len(head.filename) > _NAME_CHARACTERS:
        raise _invalid(head.name, f"the file's name is over {_NAME_CHARACTERS} characters")
    if _CONTROL.search(head.filename):
        raise _invalid(head.name, "the file's name holds control characters")
    return head.filename


def _media_type(head: PartBegan) -> str:
    """Returns the client's media type, or the default if it is missing or malformed."""
    return head.media_type if _MEDIA_TYPE.fullmatch(head.media_type) else _UNKNOWN_TYPE


def _missing(field: str) -> InvalidRequest:
    message = f"Missing required parameter: '{field}'."
    return InvalidRequest(message, param=field, code="missing_required_parameter")


def _invalid(name: str, why: str) -> InvalidRequest:
    field = field_name((name,)) or "?"
    return InvalidRequest(f"Invalid '{field}': {why}.", param=field)
