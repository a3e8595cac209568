"""Outermost middleware of the contract: adds headers to answers, removes the prefix `/v1`."""

import re
import time
from collections.abc import Awaitable, Iterable
from email.utils import formatdate
from functools import lru_cache
from secrets import token_hex
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_backend.contract.application.model_field import ModelField
from llm_backend.error_bodies import speaks_messages
from llm_backend.logs import REQUEST_ID

EXPOSED_HEADERS = ("x-request-id", "openai-processing-ms", "openai-version")
"""Headers of answers that scripts of other sites may read."""

_VERSION = (b"openai-version", b"2020-10-01")  # the only version that OpenAI's API has had
_PRINTABLE = bytes(range(0x21, 0x7F))
# Paths of older clients, and those of today: models were once called engines.
_OLD_PATHS = (("/chat/completion", "/chat/completions"), ("/engines", "/models"))
_COMPLETION_OF_MODEL = re.compile("/models/(.+?)/((?:chat/)?completions|embeddings)")


class Envelope:
    """Adds a request id to the scope and the response, and a `Date` header. Under `/v1` adds the
    milliseconds until the response began and the API's version, and removes `/v1` from the path.
    Anthropic's clients get the id in a further header, `request-id`. A response keeps the
    headers that it has already.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on. The scope's `state` is shared with outer middleware."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{token_hex(16)}"
        state = scope.setdefault("state", {})
        state["request_id"], state["sent_path"] = request_id, _sent_path(scope)
        is_message = speaks_messages(scope["path"])
        is_api = scope["path"].startswith("/v1/")
        began = time.perf_counter()
        scope = {**scope, **_without_prefix(scope)}
        named = _COMPLETION_OF_MODEL.fullmatch(scope["path"])
        if named and scope["method"] == "POST":
            scope, receive = _with_model(scope, receive, named[1], f"/{named[2]}")

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [
                    (b"x-request-id", request_id.encode()),
                    (b"date", _date(int(time.time()))),
                ]
                if is_message:
                    headers.append((b"request-id", request_id.encode()))
                if is_api:
                    elapsed_ms = round((time.perf_counter() - began) * 1e3)
                    headers += [(b"openai-processing-ms", b"%d" % elapsed_ms), _VERSION]
                message = _add_headers(message, headers)
            return send(message)

        outer = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(outer)


def _add_headers(start: Message, ours: Iterable[tuple[bytes, bytes]]) -> Message:
    headers = start["headers"]
    present = {name.lower() for name, _ in headers}
    return {**start, "headers": [*headers, *(pair for pair in ours if pair[0] not in present)]}


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def encode_target(raw: bytes) -> str:
    """Returns a part of a request target as text; bytes not allowed in it are percent-encoded."""
    return quote(raw, safe=_PRINTABLE) if raw.strip(_PRINTABLE) else raw.decode()


def _sent_path(scope: Scope) -> str:
    """Returns the path as it was sent, percent-encoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", errors="replace")
    return encode_target(raw)


def _without_prefix(scope: Scope) -> Scope:
    """Returns `path` and `raw_path` without `/v1` and without a trailing slash; paths of older
    clients (`_OLD_PATHS`) become those of today."""
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or path.encode("utf-8", errors="replace")
    path = path.removeprefix("/v1") if path.startswith("/v1/") else path
    raw = raw.removeprefix(b"/v1") if raw.startswith(b"/v1/") else raw
    path, raw = path.rstrip("/") or "/", raw.rstrip(b"/") or b"/"
    for old, new in _OLD_PATHS:
        if path == old or path.startswith(f"{old}/"):
            path = new + path.removeprefix(old)
            raw = new.encode() + raw.removeprefix(old.encode())
    return {"path": path, "raw_path": raw}


def _with_model(scope: Scope, receive: Receive, model: str, path: str) -> tuple[Scope, Receive]:
    """Moves the model of a request from its path, where older clients put it, to its body, as the
    first field of the JSON object."""
    field = ModelField(model)

    async def receive_with_model() -> Message:
        message = await receive()
        body = message.get("body", b"")
        return {**message, "body": field.insert_into(body)} if body else message

    headers = [
        (name, b"%d" % (int(value) + field.size_bytes))
        if name == b"content-length" and value.isdigit()
        else (name, value)
        for name, value in scope["headers"]
    ]
    return {
        **scope,
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
    }, receive_with_model
