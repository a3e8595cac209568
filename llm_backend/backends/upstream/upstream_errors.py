"""Errors of upstreams, in the forms that servers write them, and as errors for clients.

Seen: `{"error": {...}}` (OpenAI, vLLM, llama-server, Ray Serve), `{"object": "error", "message":
...}` (SGLang), `{"detail": ...}` (FastAPI, under most of them), `{"error": "..."}` (Ollama),
`[{"error": {...}}]` (Gemini), plain text (proxies).
"""

import logging
from collections.abc import Mapping, Sequence

import orjson

from llm_backend import exact_json
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.errors import (
    ApiError,
    ServiceUnavailable,
    UpstreamFailed,
    UpstreamTimeout,
    from_status,
)
from llm_backend.json_types import JsonMapping

log = logging.getLogger(__name__)

ERROR_BYTES = 64 * 1024
"""Size of the longest error that is parsed."""
_NO_ANSWER = "No upstream could answer the request."
_OUTAGES = {503: ServiceUnavailable, 504: UpstreamTimeout, 529: ServiceUnavailable}
_WAIT_DIGITS = 7  # digits of `retry-after` in seconds: more, beyond some weeks, are invalid


async def read_error(relayed: UpstreamAnswer) -> ApiError:
    """Returns an upstream's error as one for the client."""
    body = await relayed.read(ERROR_BYTES)
    fields = {"upstream": relayed.upstream, "status": relayed.status}
    log.warning("upstream_refused", extra=fields)
    refused = error_fields(body)
    message, code = refused.get("message"), refused.get("code")
    if 400 <= relayed.status < 500:
        default = "The upstream refused the request."
        error = from_status(relayed.status, message if isinstance(message, str) else default)
    else:
        error_type = _OUTAGES.get(relayed.status, UpstreamFailed)
        error = error_type(message if isinstance(message, str) else _NO_ANSWER)
    if isinstance(code, str) and code:
        error.code = code  # without `param`, which names a field of the other operation
    error.retry_after_s = retry_after_s(relayed)
    return error


def retry_after_s(relayed: UpstreamAnswer) -> float | None:
    """Returns the seconds of the upstream's `Retry-After`; None if absent or invalid."""
    wait = relayed.header(b"retry-after") or b""
    return int(wait) if wait.isdigit() and len(wait) < _WAIT_DIGITS else None


def is_documented(body: bytes) -> bool:
    """Returns True if the body has the document's `error` object."""
    answer = exact_json.parse_object(body)
    return answer is not None and isinstance(answer.get("error"), dict)


def error_fields(body: bytes) -> JsonMapping:
    """Returns the fields of an error body, `message` among them where it has one."""
    try:
        answer = exact_json.loads(body)
    except orjson.JSONDecodeError:
        return _plain_text(body)
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return {}
    error = answer.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {"message": error}
    if isinstance(answer.get("message"), str):
        return answer
    detail = _detail(answer.get("detail"))
    return {} if detail is None else {"message": detail}


def _plain_text(body: bytes) -> JsonMapping:
    """Returns a body that is no JSON as the message, unless it is empty, a page or no UTF-8."""
    try:
        message = body.decode().strip()
    except UnicodeDecodeError:
        return {}
    return {} if not message or message.startswith("<") else {"message": message}


def _detail(detail: object) -> str | None:
    """Returns FastAPI's detail as a text: a text itself, or the first invalid field of a list."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, Sequence) or not detail or not isinstance(detail[0], Mapping):
        return None
    location, message = detail[0].get("loc"), detail[0].get("msg")
    if not isinstance(message, str):
        return None
    if not isinstance(location, Sequence):
        return message
    return f"{'.'.join(str(part) for part in location if part != 'body')}: {message}"
