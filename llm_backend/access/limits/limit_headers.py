"""OpenAI's response headers of rate limits, written and read. Pure."""

import re
from collections.abc import Sequence

from llm_backend.access.limits.rate_window import RateLimitWindow

LIMITED_UNITS = ("requests", "tokens")
"""What rate limits count."""

_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def limit_header(name: str, unit: str) -> str:
    """Returns the header of `limit`, `remaining` or `reset` of a limited unit."""
    return f"x-ratelimit-{name}-{unit}"


LIMIT_HEADERS = tuple(
    limit_header(name, unit) for unit in LIMITED_UNITS for name in ("limit", "remaining", "reset")
)
"""All headers of rate limits."""


def limit_headers(windows: Sequence[RateLimitWindow], now: float) -> dict[str, str]:
    """Returns the headers: limit, remaining and reset of the tightest limit of each unit."""
    headers: dict[str, str] = {}
    for unit in LIMITED_UNITS:
        same_unit = [one for one in windows if one.unit == unit]
        if not same_unit:
            continue
        tightest = min(same_unit, key=lambda one: one.remaining)
        headers[limit_header("limit", unit)] = str(tightest.limit)
        headers[limit_header("remaining", unit)] = str(tightest.remaining)
        headers[limit_header("reset", unit)] = format_duration(tightest.reset_s(now))
    return headers


def format_duration(seconds: float) -> str:
    """Formats a duration as OpenAI does: 850ms, 12.5s, 6m0s, 23h59m0s."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if seconds < 60 and (short := f"{seconds:.3g}") != "60":
        return f"{short}s"
    minutes, rest = divmod(max(int(seconds), 60), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def parse_duration(duration: str) -> float:
    """Returns the seconds of a duration in this form."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(duration))
