"""Type-checked fields of upstream events (pure).

Each function raises `UpstreamFailed` for a value of the wrong type, and returns an empty value for
a field that is absent or null, except `required_text`, which raises, and `error_in_event`, which
returns the error.
"""

from collections.abc import Sequence

from llm_backend.errors import ApiError, RateLimited, UpstreamFailed
from llm_backend.json_types import JsonMapping

_MAX_INTEGER = 2**53  # JSON parsers disagree about larger integers
_LIMITS = frozenset({"rate_limit_exceeded", "rate_limit_error"})
_KEY_ERRORS = frozenset({"invalid_api_key", "authentication_error", "permission_error"})


def text(fields: JsonMapping, name: str) -> str:
    """Returns a string."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _other_type(name)
    return value


def required_text(fields: JsonMapping, name: str) -> str:
    """Returns a string that must not be empty."""
    if not (value := text(fields, name)):
        raise UpstreamFailed(f"The upstream sent an event without `{name}`.")
    return value


def number(fields: JsonMapping, name: str) -> int:
    """Returns an index or a count; 0 if absent."""
    value = fields.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_INTEGER:
        raise _other_type(name)
    return value


def object_in(fields: JsonMapping, name: str) -> JsonMapping:
    """Returns an object."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _other_type(name)
    return value


def objects_in(fields: JsonMapping, name: str) -> Sequence[JsonMapping]:
    """Returns a list of objects."""
    value = fields.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _other_type(name)
    return value


def error_in_event(error: object) -> ApiError:
    """Converts an error event of an upstream to an error for the client. Errors of this server's
    own API key are hidden from clients."""
    error_fields = error if isinstance(error, dict) else {}
    message, kinds = (
        error_fields.get("message"),
        {str(error_fields.get(name)) for name in ("code", "type")},
    )
    if kinds & _KEY_ERRORS or not isinstance(message, str) or not message:
        return UpstreamFailed("The upstream failed in the middle of its answer.")
    return (RateLimited if kinds & _LIMITS else UpstreamFailed)(message)


def _other_type(name: str) -> UpstreamFailed:
    return UpstreamFailed(f"The upstream sent an event whose `{name}` is of another type.")
