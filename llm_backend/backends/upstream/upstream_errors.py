"""Errors of upstreams that do not write them as the document does (pure).

Seen: `{"error": {...}}` (OpenAI, vLLM, llama-server, Ray Serve), `{"object": "error", "message":
...}` (SGLang), `{"detail": ...}` (FastAPI, under most of them), `{"error": "..."}` (Ollama),
`[{"error": {...}}]` (Gemini), plain text (proxies).
"""

from collections.abc import Mapping, Sequence

import orjson

from llm_backend import exact_json
from llm_backend.json_types import JsonMapping

ERROR_BYTES = 64 * 1024
"""Size of the longest error that is parsed."""


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
