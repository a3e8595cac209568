"""Reads the `model` field from the beginning of a multipart form that is relayed as a stream."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive

from llm_backend.contract.body import replay_body
from llm_backend.errors import ClientGone

# Clients send their fields before or after the file. A model name beyond this many bytes is not
# read, and the form goes to the upstream of the operation.
_HEAD_BYTES = 64 * 1024
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?', re.IGNORECASE)
_NAMES_MODEL = re.compile(rb'[; ]name="?model"?\s*(?:;|\r|$)', re.IGNORECASE)
_NAMES_SESSION = re.compile(rb'[; ]name="?session"?\s*(?:;|\r|$)', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FormHead:
    """First bytes of a form, with the offsets of the model's name in them.

    `more`: the form continues. `session` is the model of a realtime session, read from the JSON of
    the form's `session` field.
    """

    read: bytes
    start: int = 0
    stop: int = 0
    more: bool = False
    session: str | None = None

    @property
    def model(self) -> str | None:
        """Value of the `model` field; None if the head holds none."""
        name = self.read[self.start : self.stop].decode(errors="replace")
        return name or None

    @property
    def requested_model(self) -> str | None:
        """Requested model, from the `model` field or the session."""
        return self.model or self.session

    def replace_model(self, model: str) -> bytes:
        """Returns the head with the model's name replaced."""
        return self.read[: self.start] + model.encode() + self.read[self.stop :]


async def read_form_head(http: HttpRequest) -> FormHead | None:
    """Reads a form until it names a model, up to a bound; returns None if the body is no form.

    Raises `ClientGone` if the client disconnects meanwhile.
    """
    kind = http.headers.get("content-type", "").encode()
    boundary = _BOUNDARY.search(kind)
    if not kind.lower().startswith(b"multipart/form-data") or boundary is None:
        return None
    return await _read(http, boundary[1].strip())


async def _read(http: HttpRequest, boundary: bytes) -> FormHead:
    read, more, offset, mark = bytearray(), True, 0, b"--" + boundary
    while more and len(read) < _HEAD_BYTES:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        read += message.get("body", b"")
        more = message.get("more_body", False)
        for begin, start, stop in _parts(read, mark, offset):
            if _NAMES_MODEL.search(read, begin, start - 2):
                return FormHead(read=bytes(read), start=start, stop=stop, more=more)
            offset = stop
    return FormHead(read=bytes(read), more=more, session=_model_of_session(read, mark))


def _model_of_session(read: bytearray, mark: bytes) -> str | None:
    for begin, start, stop in _parts(read, mark, 0):
        if _NAMES_SESSION.search(read, begin, start - 2):
            return _model_in(read[start:stop])
    return None


def _model_in(text: bytearray) -> str | None:
    try:
        session = orjson.loads(text)
    except orjson.JSONDecodeError:  # the upstream reports it
        return None
    model = session.get("model") if isinstance(session, dict) else None
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
    return HttpRequest(http.scope, replay_body(head.read, http.receive, more=head.more))


def with_model(http: HttpRequest, head: FormHead, model: str) -> HttpRequest:
    """Returns the whole request with another model name, and its `Content-Length` adjusted."""
    first = head.replace_model(model)
    added_bytes = len(first) - len(head.read)
    headers = [_adjust_length(pair, added_bytes) for pair in http.scope["headers"]]
    return HttpRequest({**http.scope, "headers": headers}, _replace_head(first, http.receive))


def _adjust_length(pair: tuple[bytes, bytes], added_bytes: int) -> tuple[bytes, bytes]:
    name, value = pair
    is_length = name == b"content-length" and value.isdigit()
    return (name, b"%d" % (int(value) + added_bytes)) if is_length else pair


def _replace_head(first: bytes, receive: Receive) -> Receive:
    """Wraps `receive`: replaces the body of the first message, which is the head."""
    is_replaced = False

    async def receive_replaced() -> Message:
        nonlocal is_replaced
        message = await receive()
        if not is_replaced:
            is_replaced = True
            return {**message, "body": first}
        return message

    return receive_replaced
