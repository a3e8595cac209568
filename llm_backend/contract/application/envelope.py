"""Outermost middleware: request id, `Date` header, and removal of the `/v1` prefix."""

import time
from collections.abc import Awaitable
from email.utils import formatdate
from functools import lru_cache
from secrets import token_hex
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_backend.telemetry import REQUEST_ID

_PRINTABLE = bytes(range(0x21, 0x7F))


class Envelope:
    """Adds a request id to the scope and the response, and a `Date` header; removes `/v1` from the
    path. A response that has an id or a date already keeps it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; `state` is shared with outer middleware."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{token_hex(16)}"
        state = scope.setdefault("state", {})
        state["request_id"], state["sent_path"] = request_id, _sent_path(scope)
        scope = {**scope, **_without_prefix(scope)}

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = _add_headers(message, request_id)
            return send(message)

        outer = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(outer)


def _add_headers(start: Message, request_id: str) -> Message:
    headers = start["headers"]
    present = {name.lower() for name, _ in headers}
    ours = ((b"x-request-id", request_id.encode()), (b"date", _date(int(time.time()))))
    return {**start, "headers": [*headers, *(pair for pair in ours if pair[0] not in present)]}


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def _sent_path(scope: Scope) -> str:
    """Returns the path as it was sent, percent-encoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", errors="replace")
    return quote(raw, safe=_PRINTABLE) if raw.strip(_PRINTABLE) else raw.decode()


def _without_prefix(scope: Scope) -> Scope:
    """Returns `path` and `raw_path` without `/v1` and without a trailing slash."""
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or path.encode("utf-8", errors="replace")
    path = path.removeprefix("/v1") if path.startswith("/v1/") else path
    raw = raw.removeprefix(b"/v1") if raw.startswith(b"/v1/") else raw
    return {"path": path.rstrip("/") or "/", "raw_path": raw.rstrip(b"/") or b"/"}
