"""Type-checked fields of upstream events (pure).

Each function raises `UpstreamFailed` for a value of another type; an absent or null one is empty.
"""

from collections.abc import Sequence

from llm_backend.errors import ApiError, RateLimited, UpstreamFailed
from llm_backend.json_types import JsonMapping

__all__ = ["error_in_event", "number", "part", "parts", "text", "word"]


_MOST = 2**53  # JSON parsers disagree about larger integers
_OF_OUR_KEY = frozenset({"invalid_api_key", "authentication_error", "permission_error"})


def text(of: JsonMapping, name: str) -> str:
    """Returns a string, maybe empty."""
    value = of.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _other_type(name)
    return value


def word(of: JsonMapping, name: str) -> str:
    """Returns a string that must not be empty."""
    if not (value := text(of, name)):
        raise UpstreamFailed(f"The upstream sent an event without `{name}`.")
    return value


def number(of: JsonMapping, name: str) -> int:
    """Returns an index or a count."""
    value = of.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise _other_type(name)
    return value


def part(of: JsonMapping, name: str) -> JsonMapping:
    """Returns an object."""
    value = of.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _other_type(name)
    return value


def parts(of: JsonMapping, name: str) -> Sequence[JsonMapping]:
    """Returns a list of objects."""
    value = of.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _other_type(name)
    return value


def error_in_event(error: object) -> ApiError:
    """Returns an upstream's error inside a stream as an error for the client. Errors of this
    server's own key are hidden from clients."""
    said = error if isinstance(error, dict) else {}
    message, kinds = said.get("message"), {str(said.get(name)) for name in ("code", "type")}
    if kinds & _OF_OUR_KEY or not isinstance(message, str) or not message:
        return UpstreamFailed("The upstream failed in the middle of its answer.")
    return (RateLimited if "rate_limit_exceeded" in kinds else UpstreamFailed)(message)


def _other_type(name: str) -> UpstreamFailed:
    return UpstreamFailed(f"The upstream sent an event whose `{name}` is of another type.")
