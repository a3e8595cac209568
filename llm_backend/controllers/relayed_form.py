"""The model that a form names, read from its beginning: forms are relayed as they come."""

import re
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive

from llm_backend.errors import ClientGone

__all__ = ["FormHead", "read_form_head", "with_form"]

# Clients write their fields before the file, or the file first; one that is this far behind is not
# waited for, and the form goes to whoever has the operation.
_HEAD_BYTES = 64 * 1024
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?', re.IGNORECASE)
_NAMES_MODEL = re.compile(rb'[; ]name="?model"?\s*(?:;|\r|$)', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FormHead:
    """The first bytes of a form, and where in them the model's name stands; `more` where the form
    goes on."""

    read: bytes
    start: int = 0
    stop: int = 0
    more: bool = False

    @property
    def model(self) -> str | None:
        """The model's name, None where the head holds none."""
        name = self.read[self.start : self.stop].decode(errors="replace")
        return name or None

    def renamed(self, model: str) -> bytes:
        """The head with another name in its place."""
        return self.read[: self.start] + model.encode() + self.read[self.stop :]


async def read_form_head(http: HttpRequest) -> FormHead | None:
    """Reads a form until it names a model, up to a bound; None where the body is no form.

    Raises `ClientGone` where the client leaves meanwhile.
    """
    kind = http.headers.get("content-type", "").encode()
    boundary = _BOUNDARY.search(kind)
    if not kind.lower().startswith(b"multipart/form-data") or boundary is None:
        return None
    return await _read(http, boundary[1].strip())


async def _read(http: HttpRequest, boundary: bytes) -> FormHead:
    read, more = bytearray(), True
    while more and len(read) < _HEAD_BYTES:
        message = await http.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        read += message.get("body", b"")
        more = message.get("more_body", False)
        if found := _place_of_model(bytes(read), b"--" + boundary):
            return FormHead(read=bytes(read), start=found[0], stop=found[1], more=more)
    return FormHead(read=bytes(read), more=more)


def _place_of_model(read: bytes, mark: bytes) -> tuple[int, int] | None:
    """Where the value of the part named `model` stands, if it stands there whole."""
    begin = read.find(mark)
    while begin >= 0:
        start = read.find(b"\r\n\r\n", begin) + 4
        stop = read.find(b"\r\n" + mark, start)
        if start < 4 or stop < 0:
            return None
        if _NAMES_MODEL.search(read[begin : start - 2]):
            return start, stop
        begin = stop + 2
    return None


def with_form(http: HttpRequest, head: FormHead, model: str | None) -> HttpRequest:
    """The request with its body whole again, under another name for the model if there is one."""
    first = head.read if model is None else head.renamed(model)
    grown = len(first) - len(head.read)
    headers = [_grown(pair, grown) for pair in http.scope["headers"]]
    return HttpRequest(
        {**http.scope, "headers": headers}, _replayed(first, head.more, http.receive)
    )


def _grown(pair: tuple[bytes, bytes], grown: int) -> tuple[bytes, bytes]:
    name, value = pair
    is_length = name == b"content-length" and value.isdigit()
    return (name, b"%d" % (int(value) + grown)) if is_length else pair


def _replayed(first: bytes, more: bool, receive: Receive) -> Receive:
    is_told = False

    async def receive_again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": first, "more_body": more}

    return receive_again
