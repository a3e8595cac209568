"""Renders answers as JSONL lines of a batch's output file or error file. Pure."""

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from llm_backend import exact_json
from llm_backend.controllers.batches.line_sender import LineAnswer
from llm_backend.error_bodies import error_body
from llm_backend.errors import UpstreamFailed
from llm_backend.store import LineResult, TokenCounts

_TOKENS_END = 1 << 31  # the database column holds no more, and no answer has as many tokens


def answer_line(line: int, custom_id: str, answer: LineAnswer) -> LineResult:
    """Renders an answer, success or error."""
    body, status = _parse_body(answer.body), answer.status
    is_error = not 200 <= status < 300
    if not isinstance(body, dict):  # for example the HTML error page of a proxy
        error = UpstreamFailed("The upstream's answer is not a JSON object.")
        body, status = error_body(error), status if is_error else error.status
        is_error = True
    response = {
        "status_code": status,
        "request_id": answer.request_id,
        "body": body,
    }
    return LineResult(
        line=line,
        is_error=is_error,
        text=_text(custom_id, response, None),
        tokens=TokenCounts() if is_error else _tokens(body.get("usage")),
    )


def error_line(line: int, custom_id: str, code: str, message: str) -> LineResult:
    """Renders a line whose request was not made, or failed without an answer."""
    error = {"code": code, "message": message}
    return LineResult(line=line, is_error=True, text=_text(custom_id, None, error))


def _text(
    custom_id: str, response: Mapping[str, Any] | None, error: Mapping[str, str] | None
) -> str:
    line = {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return exact_json.dumps(line).decode()


def _parse_body(body: bytes) -> Any:
    """Parses JSON; returns None if it is invalid, or too deeply nested to be serialized again."""
    try:
        value = exact_json.loads(body)
        exact_json.dumps(value)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return value


def _tokens(usage: Any) -> TokenCounts:
    """Parses the usage object of chats and embeddings, or of responses."""
    if not isinstance(usage, dict):
        return TokenCounts()
    in_details = _details(usage, "prompt_tokens_details", "input_tokens_details")
    out_details = _details(usage, "completion_tokens_details", "output_tokens_details")
    return TokenCounts(
        input_tokens=_number(usage.get("prompt_tokens", usage.get("input_tokens"))),
        cached_tokens=_number(in_details.get("cached_tokens")),
        output_tokens=_number(usage.get("completion_tokens", usage.get("output_tokens"))),
        reasoning_tokens=_number(out_details.get("reasoning_tokens")),
    )


def _details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found: Any = next((usage[name] for name in names if usage.get(name)), {})
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int:
    """Returns an upstream's number of tokens, or 0 if it is invalid."""
    return value if isinstance(value, int) and 0 <= value < _TOKENS_END else 0
