"""Request bodies: size limits, and JSON parsing that refuses values that cannot be stored."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from starlette.types import Message, Receive

from llm_backend import exact_json
from llm_backend.contract.body_bounds import check_size
from llm_backend.contract.validation_messages import Path, field_name
from llm_backend.errors import (
    INVALID_JSON_SCHEMA,
    ClientGone,
    InvalidRequest,
    TooLarge,
    UnsupportedMediaType,
)
from llm_backend.json_types import JsonValue
from llm_backend.settings import Settings

_SCHEMA_OWNERS = {("response_format",), ("text",), ("tools",), ("functions",)}
_SCHEMA_FIELDS = {"schema", "parameters", "input_schema"}


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """Limits of a request body: JSON is kept in memory, uploads are streamed.

    `json_nodes` counts values and field names; `json_text_bytes` leaves out files in base64;
    `recording_bytes` is for a file in a form that is stored until the form's `model` is known.
    """

    json_bytes: int = 32 * 1024 * 1024
    json_nodes: int = 400_000
    json_text_bytes: int = 16 * 1024 * 1024
    upload_bytes: int = 1024 * 1024 * 1024
    recording_bytes: int = 512 * 1024 * 1024
    json_depth: int = 100


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


def announces_body(headers: Mapping[str, str]) -> bool:
    """True if the headers (names in lower case) say that the request has a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def check_length(headers: Mapping[str, str], limit_bytes: int) -> None:
    """Raises `TooLarge` if the `Content-Length` is over the limit."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit_bytes):
        raise _too_large(limit_bytes)


def limit_body(receive: Receive, limit_bytes: int) -> Receive:
    """Wraps `receive`: raises `TooLarge` once the body is larger than the limit."""
    seen_bytes = 0

    async def receive_counted() -> Message:
        nonlocal seen_bytes
        message = await receive()
        seen_bytes += len(message.get("body", b""))
        if seen_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        return message

    return receive_counted


async def read_body(receive: Receive) -> bytes:
    """Reads the whole body; raises `ClientGone` if the client disconnects before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def replay_body(body: bytes, receive: Receive, *, more: bool = False) -> Receive:
    """Returns a `receive` that replays a body read before, then continues with `receive`. `more`:
    the rest of the body is still to be read."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": more}

    return receive_again


def check_encoding(headers: Mapping[str, str]) -> None:
    """Raises `UnsupportedMediaType` for a compressed body."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedMediaType(
            f"The content encoding {encoding[:64]!r} is not supported; send the body uncompressed."
        )


def parse_json(body: bytes, limits: BodyLimits) -> JsonValue:
    """Parses the body; raises `InvalidRequest` for invalid or unstorable JSON, `TooLarge` for a
    body that would take too long.

    Also refused are lone surrogates and other broken Unicode, NaN and Infinity, nesting deeper than
    the limit, and NUL characters, which databases cannot store. In earlier answers U+FFFD replaces
    NUL characters instead, so that a chat can go on after a model has written one.
    """
    check_bounds(body, limits)
    try:
        value = exact_json.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(_syntax_message(body, error), code="invalid_json") from None
    check_depth(value, body, limits.json_depth)
    if b"\\u0000" in body:
        _replace_nul_in_answers(value)
        check_nul(value)
    return value


def _syntax_message(body: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as broken:  # whose position `error` does not have
        return f"The body is not valid JSON: it is not UTF-8, at byte {broken.start}."
    return f"The body is not valid JSON: {error.msg}, at character {error.pos}."


def check_bounds(body: bytes, limits: BodyLimits) -> None:
    """Raises `TooLarge` for JSON text whose parsing would block other requests too long."""
    check_size(body, nodes_limit=limits.json_nodes, text_limit_bytes=limits.json_text_bytes)


def check_duplicate_keys(body: bytes | str) -> None:
    """Raises `InvalidRequest` for JSON with a duplicate key in an object: parsers differ in the
    value that they keep."""
    try:
        json.loads(
            body, object_pairs_hook=_check_pairs, parse_int=len, parse_float=len, parse_constant=len
        )
    except (RecursionError, ValueError) as error:
        message = "The JSON is invalid or nested too deeply."
        raise InvalidRequest(message, code="invalid_json") from error


def _check_pairs(pairs: Sequence[tuple[str, JsonValue]]) -> None:
    if len(dict(pairs)) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        message = f"The JSON has the key '{name[:256]}' twice in one object."
        raise InvalidRequest(message, code="invalid_json")


def check_depth(value: JsonValue, body: bytes, limit: int) -> None:
    """Raises `InvalidRequest` for the value of a body that is nested deeper than the limit."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > limit:
            raise InvalidRequest(f"The body is nested deeper than {limit} levels.")
        level = [inner for one in level for inner in _children(one)]


def _children(value: dict[str, JsonValue] | list[JsonValue]) -> list[JsonValue]:
    return list(value.values()) if isinstance(value, dict) else value


def _replace_nul_in_answers(value: JsonValue) -> None:
    for name in ("messages", "input", "items"):
        turns = value.get(name) if isinstance(value, dict) else None
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and _is_answer(turn):
                turn.update({key: _without_nul(inner) for key, inner in turn.items()})


def _is_answer(turn: dict[str, JsonValue]) -> bool:
    """True for a message of a model, and an item of a response that a model wrote."""
    kind = turn.get("type")
    is_item = isinstance(kind, str) and (kind == "reasoning" or kind.endswith("_call"))
    return turn.get("role") == "assistant" or is_item


def _without_nul(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {key: _without_nul(inner) for key, inner in value.items()}
    return [_without_nul(inner) for inner in value] if isinstance(value, list) else value


def check_nul(value: JsonValue) -> None:
    """Raises `InvalidRequest`, naming the field, for a value with NUL characters."""
    unread: list[tuple[Path, JsonValue]] = [((), value)]
    while unread:
        path, one = unread.pop()
        if isinstance(one, str) and "\x00" in one:
            field = field_name(path)
            message = f"Invalid '{field}': strings cannot hold NUL characters."
            raise InvalidRequest(message, param=field, code=_code_of_nul(path))
        if isinstance(one, dict):
            unread += [((*path, key.replace("\x00", "?")), inner) for key, inner in one.items()]
            unread += [((*path, key.replace("\x00", "?")), key) for key in one if "\x00" in key]
        elif isinstance(one, list):
            unread += [((*path, position), inner) for position, inner in enumerate(one)]


def _code_of_nul(path: Path) -> str | None:
    """Returns the error code for a NUL character at this path: that of an invalid schema within a
    JSON schema, else None."""
    is_schema = path[:1] == ("format",) or (
        path[:1] in _SCHEMA_OWNERS and not _SCHEMA_FIELDS.isdisjoint(path)
    )
    return INVALID_JSON_SCHEMA if is_schema else None


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than this server's limit of {limit_bytes} bytes.")
