"""Reads the `model` field from the beginning of a multipart form that is read as a stream.

Clients send fields before or after the file. A form for an upstream is relayed as it arrives, so a
model's name after a long file is not read. A form that may be answered here is stored up to the
model's name, because the name decides where it is answered.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive

from llm_backend import exact_json
from llm_backend.contract.body import check_length, limit_body, replay_body
from llm_backend.errors import ClientGone
from llm_backend.temporary_files import TemporaryFiles

# A model name beyond this many bytes of a relayed form is not read, and the form goes to the
# upstream of the operation.
_HEAD_BYTES = 64 * 1024
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?', re.IGNORECASE)
_KIND = "form"  # kind of temporary files
_CHUNK_BYTES = 256 * 1024  # pieces in which a stored form is read again
_NAMES_MODEL = re.compile(rb'[; ]name="?model"?\s*(?:;|\r|$)', re.IGNORECASE)
_NAMES_SESSION = re.compile(rb'[; ]name="?session"?\s*(?:;|\r|$)', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FormHead:
    """First bytes of a form, with the offsets of the model's name in them.

    `read` holds the first of them, and `stored` the others, if there are many. `more`: the form
    continues. `session_model` is that of a realtime session, read from the JSON of the form's
    `session` field.
    """

    read: bytes
    start: int = 0
    stop: int = 0
    name: str = ""
    more: bool = False
    session_model: str | None = None
    stored: IO[bytes] | None = None

    @property
    def model(self) -> str | None:
        """Value of the `model` field; None if the head holds none."""
        return self.name or None

    @property
    def requested_model(self) -> str | None:
        """Requested model, from the `model` field or the session."""
        return self.model or self.session_model

    def pieces(self) -> Iterator[bytes]:
        """Yields the bytes, in their order."""
        yield self.read
        if self.stored is not None:
            self.stored.seek(0)
            while piece := self.stored.read(_CHUNK_BYTES):
                yield piece

    def close(self) -> None:
        """Deletes the stored bytes."""
        if self.stored is not None:
            self.stored.close()


async def read_form_head(
    http: HttpRequest, files: TemporaryFiles, *, stored_limit_bytes: int | None = None
) -> FormHead | None:
    """Reads a form until it names a model; None if it is not a form. The bytes read are
    bounded; with `stored_limit_bytes` they are stored, up to this limit. The caller closes the
    head.

    Raises `ClientGone` if the client disconnects meanwhile, `TooLarge` over the limit.
    """
    kind = http.headers.get("content-type", "").encode()
    boundary = _BOUNDARY.search(kind)
    if not kind.lower().startswith(b"multipart/form-data") or boundary is None:
        return None
    return await _read(http, files, b"--" + boundary[1].strip(), stored_limit_bytes)


async def _read(
    http: HttpRequest, files: TemporaryFiles, mark: bytes, limit_bytes: int | None
) -> FormHead:
    read, more, finder = bytearray(), True, _ModelFinder(mark)
    stored: IO[bytes] | None = None
    receive = http.receive if limit_bytes is None else limit_body(http.receive, limit_bytes)
    try:
        while more and (limit_bytes is not None or len(read) < _HEAD_BYTES):
            if limit_bytes is not None and len(read) >= _HEAD_BYTES:
                check_length(http.headers, limit_bytes)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if len(read) < _HEAD_BYTES:
                read += body
            else:
                stored = stored or files.open(_KIND)
                with files.writing(_KIND):
                    stored.write(body)  # fast: to the page cache
            if (found := finder.find(body)) is not None:
                start, name = found
                return FormHead(
                    read=bytes(read),
                    start=start,
                    stop=start + len(name),
                    name=name.decode(errors="replace"),
                    more=more,
                    stored=stored,
                )
    except BaseException:
        if stored is not None:
            stored.close()
        raise
    session_model = _model_of_session(read, mark)
    return FormHead(read=bytes(read), more=more, session_model=session_model, stored=stored)


class _ModelFinder:
    """Finds the `model` field in the pieces of a form. Keeps no bytes of complete or long parts."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._kept = bytearray()
        self._dropped_bytes = 0
        self._offset = 0  # in the kept bytes, of the part that is not complete yet

    def find(self, piece: bytes) -> tuple[int, bytes] | None:
        """Returns offset and value of the field if this piece completes it."""
        kept = self._kept
        kept += piece
        for begin, start, stop in _parts(kept, self._mark, self._offset):
            if _NAMES_MODEL.search(kept, begin, start - 2):
                return self._dropped_bytes + start, bytes(kept[start:stop])
            self._offset = stop
        if len(kept) - self._offset > _HEAD_BYTES:
            self._drop(len(kept) - len(self._mark) - 2)  # the next boundary may have begun
        elif self._offset > _HEAD_BYTES:
            self._drop(self._offset)
        return None

    def _drop(self, count: int) -> None:
        del self._kept[:count]
        self._dropped_bytes += count
        self._offset = 0


def _model_of_session(read: bytearray, mark: bytes) -> str | None:
    for begin, start, stop in _parts(read, mark, 0):
        if _NAMES_SESSION.search(read, begin, start - 2):
            return _model_in(read[start:stop])
    return None


def _model_in(text: bytearray) -> str | None:
    session = exact_json.parse_object(text) or {}  # the upstream reports invalid JSON
    model = session.get("model")
    return model if isinstance(model, str) else None


def _parts(read: bytearray, mark: bytes, offset: int) -> Iterator[tuple[int, int, int]]:
    """Yields the complete parts after `offset`: offset of the part, start and stop of its value."""
    begin = read.find(mark, offset)
    while begin >= 0:
        start = read.find(b"\r\n\r\n", begin) + 4
        stop = read.find(b"\r\n" + mark, start)
        if start < 4 or stop < 0:
            return
        yield begin, start, stop
        begin = stop + 2


def prepend_head(http: HttpRequest, head: FormHead) -> HttpRequest:
    """Returns the request with the bytes of the head in its body again."""
    if head.stored is None:
        return HttpRequest(http.scope, replay_body(head.read, http.receive, more=head.more))
    return HttpRequest(http.scope, _replay(head, http.receive))


def _replay(head: FormHead, receive: Receive) -> Receive:
    pieces = head.pieces()
    has_ended = False

    async def receive_again() -> Message:
        nonlocal has_ended
        piece = next(pieces, None)
        if piece is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        if head.more or has_ended:
            return await receive()
        has_ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_again


def rename_form_model(http: HttpRequest, head: FormHead, model: str) -> HttpRequest:
    """Returns the whole request with another model name, and its `Content-Length` adjusted."""
    name = model.encode()
    added_bytes = len(name) - (head.stop - head.start)
    headers = [_adjust_length(pair, added_bytes) for pair in http.scope["headers"]]
    return HttpRequest({**http.scope, "headers": headers}, _rename(head, name, http.receive))


def _adjust_length(pair: tuple[bytes, bytes], added_bytes: int) -> tuple[bytes, bytes]:
    name, value = pair
    is_length = name == b"content-length" and value.isdigit()
    return (name, b"%d" % (int(value) + added_bytes)) if is_length else pair


def _rename(head: FormHead, name: bytes, receive: Receive) -> Receive:
    """Wraps `receive`: replaces the bytes of the model's name."""
    offset = 0

    async def receive_renamed() -> Message:
        nonlocal offset
        message = await receive()
        body: bytes = message.get("body", b"")
        start, stop = (max(0, at - offset) for at in (head.start, head.stop))
        holds_start = 0 <= head.start - offset < len(body)
        offset += len(body)
        if not body or stop == 0 or start >= len(body):
            return message
        return {**message, "body": body[:start] + (name if holds_start else b"") + body[stop:]}

    return receive_renamed
