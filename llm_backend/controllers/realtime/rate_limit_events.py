"""Rate limits of an answer's headers as an event. Pure."""

from collections.abc import Sequence

from llm_backend.access.limits.limit_headers import LIMITED_UNITS, limit_header, parse_duration
from llm_backend.json_types import JsonObject

Headers = Sequence[tuple[bytes, bytes]]


def rate_limits_event(headers: Headers) -> JsonObject | None:
    """Returns the event `rate_limits.updated`; None if no limit applies."""
    values = {name.decode().lower(): value.decode() for name, value in headers}
    limits = [
        {
            "name": unit,
            "limit": int(values[limit_header("limit", unit)]),
            "remaining": int(values[limit_header("remaining", unit)]),
            "reset_seconds": parse_duration(values[limit_header("reset", unit)]),
        }
        for unit in LIMITED_UNITS
        if limit_header("limit", unit) in values
    ]
    return {"type": "rate_limits.updated", "rate_limits": limits} if limits else None
