"""A request of this server's own, as its application takes one: a JSON body that is posted."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope

from llm_backend import exact_json
from llm_backend.contract.body import BodyLimits, replay_body
from llm_backend.errors import InvalidRequest
from llm_backend.settings import Settings

__all__ = ["body_channel", "json_body", "json_limits", "json_post"]


def json_limits(settings: Settings) -> BodyLimits:
    """What any body may be, as the settings say."""
    return BodyLimits(
        json_bytes=settings.body_limit_bytes,
        json_nodes=settings.json_nodes_limit,
        json_text_bytes=settings.json_text_limit_bytes,
        json_depth=settings.json_depth_limit,
        upload_bytes=settings.upload_limit_bytes,
    )


def json_body(fields: Mapping[str, Any]) -> bytes:
    """The body of a request of these fields. Raises `InvalidRequest` for what can be read as JSON
    and not be written: nesting beyond some 250 levels."""
    try:
        return exact_json.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def json_post(
    path: str, body: bytes, *, headers: Iterable[tuple[bytes, bytes]] = (), state: dict[str, Any]
) -> Scope:
    """What is said of the request before its body: `headers` besides those of the body."""
    own = [
        (b"content-type", b"application/json"),
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
    """A channel that tells the body and nothing more: who asks does not leave, but cancels."""
    return replay_body(body, _nothing_more)


async def _nothing_more() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")
