"""Bodies of errors: OpenAI's, Anthropic's for Messages, or Ollama's."""

import re
from collections.abc import Mapping
from typing import TypedDict

from llm_backend.errors import ApiError

_MESSAGES_PATH = re.compile(r"(/v1)?/messages(/count_tokens)?/?")
# text-generation-webui has paths below /api/v1
_OLLAMA_PATH = re.compile(r"(/v1)?/api/(?!v1/).*", re.DOTALL)
_MESSAGES_ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


class ErrorDetail(TypedDict):
    """The object under `error`; all four keys are always present."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """OpenAI's error body."""

    error: ErrorDetail


def error_body_for(path: str, error: ApiError) -> Mapping[str, object]:
    """Builds the error body of the operations at a path: OpenAI's, Anthropic's or Ollama's."""
    if speaks_ollama(path):
        return {"error": _with_field(error)}
    return messages_error_body(error) if speaks_messages(path) else error_body(error)


def speaks_messages(path: str) -> bool:
    """Returns True for a path of Anthropic's Messages."""
    return _MESSAGES_PATH.fullmatch(path) is not None


def speaks_ollama(path: str) -> bool:
    """Returns True for a path of Ollama's API."""
    return _OLLAMA_PATH.fullmatch(path) is not None


def messages_error_body(error: ApiError) -> dict[str, object]:
    """Builds Anthropic's error body for this error, which is also the error event of a stream."""
    other = "api_error" if error.status >= 500 else "invalid_request_error"
    kind = _MESSAGES_ERROR_TYPES.get(error.status, other)
    return {"type": "error", "error": {"type": kind, "message": _with_field(error)}}


def error_body(error: ApiError) -> ErrorBody:
    """Builds OpenAI's error body for this error."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def _with_field(error: ApiError) -> str:
    """Returns the message with the path of a nested field, for bodies without `param`."""
    param = error.param
    if param is None or param in error.message or not ("." in param or "[" in param):
        return error.message
    return f"{error.message} (`{param}`)"
