"""Internal requests: ASGI scope and body of a JSON request that the server sends to itself."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope

from llm_backend import exact_json
from llm_backend.contract.body import BodyLimits, replay_body
from llm_backend.errors import InvalidRequest
from llm_backend.settings import Settings


def json_limits(settings: Settings) -> BodyLimits:
    """Returns the limits of a body from the settings."""
    return BodyLimits(
        json_bytes=settings.body_limit_bytes,
        json_nodes=settings.json_nodes_limit,
        json_text_bytes=settings.json_text_limit_bytes,
        json_depth=settings.json_depth_limit,
        upload_bytes=settings.upload_limit_bytes,
        recording_bytes=settings.transcription_limit_bytes,
    )


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Encodes the body of a request. Raises `InvalidRequest` for nesting beyond some 250 levels,
    which can be parsed but not written."""
    try:
        return exact_json.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def json_post(
    path: str,
    body: bytes,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    state: dict[str, Any],
    content_type: bytes = b"application/json",
) -> Scope:
    """Returns the ASGI scope of the request; `headers` are added to those of the body."""
    own = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [*headers, *own],
        "client": None,
        "server": None,
        "state": state,
    }


def body_channel(body: bytes) -> Receive:
    """Returns a `receive` with the body and no disconnect: an internal client cancels instead."""
    return replay_body(body, _nothing_more)


async def _nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")
