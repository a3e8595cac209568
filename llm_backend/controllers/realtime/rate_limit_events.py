"""Rate limits of an answer's headers as an event. Pure."""

import re
from collections.abc import Sequence

from llm_backend.json_types import JsonObject

Headers = Sequence[tuple[bytes, bytes]]

_PREFIX = "x-ratelimit"
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def rate_limits_event(headers: Headers) -> JsonObject | None:
    """Returns the event `rate_limits.updated`; None if no limit applies."""
    values = {name.decode().lower(): value.decode() for name, value in headers}
    limits = [
        {
            "name": name,
            "limit": int(values[f"{_PREFIX}-limit-{name}"]),
            "remaining": int(values[f"{_PREFIX}-remaining-{name}"]),
            "reset_seconds": _seconds(values[f"{_PREFIX}-reset-{name}"]),
        }
        for name in ("requests", "tokens")
        if f"{_PREFIX}-limit-{name}" in values
    ]
    return {"type": "rate_limits.updated", "rate_limits": limits} if limits else None


def _seconds(duration: str) -> float:
    """Returns the seconds of OpenAI's form: 850ms, 12.5s, 6m0s, 23h59m0s."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(duration))
