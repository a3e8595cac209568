"""Checks selected fields of a form while it is streamed to an upstream."""

from collections.abc import Callable, Collection

from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive

from llm_backend.contract.forms.multipart import Event, PartBegan, PartEnded, Parts, boundary_of
from llm_backend.errors import InvalidRequest

_FIELD_BYTES = 64 * 1024  # limit of one observed field

CheckField = Callable[[str, bytes], None]
"""Called with a field's name in lower case, and its value."""


def observe_form(http: HttpRequest, names: Collection[str], check: CheckField) -> HttpRequest:
    """Wraps the request: `check` is called with every field of `names` before its last bytes are
    passed on, and may raise. Raises `InvalidRequest` for a malformed form.
    """
    fields = _Fields(boundary_of(http.headers.get("content-type", "")), names, check)
    return HttpRequest(http.scope, _observe(http.receive, fields))


def _observe(receive: Receive, fields: "_Fields") -> Receive:
    async def receive_observed() -> Message:
        message = await receive()
        if body := message.get("body"):
            fields.feed(body)
        return message

    return receive_observed


class _Fields:
    """Form parser that buffers one observed field at a time."""

    def __init__(self, boundary: bytes, names: Collection[str], check: CheckField) -> None:
        self._parts = Parts(boundary)
        self._names = names
        self._check = check
        self._name: str | None = None  # of the field that is being read
        self._value = bytearray()

    def feed(self, piece: bytes) -> None:
        for event in self._parts.read(piece):
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, PartBegan):
            name = event.name.lower()
            self._name = name if name in self._names else None
        elif self._name is None:
            return
        elif isinstance(event, PartEnded):
            self._check(self._name, bytes(self._value))
            self._value.clear()
        else:
            self._value += event
            if len(self._value) > _FIELD_BYTES:
                message = f"The field holds more than {_FIELD_BYTES} bytes."
                raise InvalidRequest(message, param=self._name)
