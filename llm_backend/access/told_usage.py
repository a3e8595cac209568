"""How many tokens an upstream says that its answer took, read off the answer's end (pure)."""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

from llm_backend.backends.relayed import plain

__all__ = ["Tail", "ToldUsage", "told_usage"]

PIECES = 8  # of an answer, that its end may be spread over
END_BYTES = 64 * 1024  # within which usage is told
# In JSON text a quotation mark inside a string is escaped, so that no string can look like this.
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_DECODER = JSONDecoder()


@dataclass(frozen=True, kw_only=True)
class ToldUsage:
    """Tokens of an answer; the cached ones are among the input."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Tail:
    """The end of an answer that passes by, without a copy of it."""

    def __init__(self, coding: bytes | None = None) -> None:
        self._pieces: deque[bytes] = deque(maxlen=PIECES)
        self.feed: Callable[[bytes], None] = plain(self._pieces.append, coding) or _unread

    def usage(self) -> ToldUsage | None:
        """What its end says; None where it says nothing."""
        return told_usage(b"".join(self._pieces)[-END_BYTES:])


def _unread(_piece: bytes) -> None:
    """A coding that cannot be read here."""


def told_usage(end: bytes) -> ToldUsage | None:
    """The last usage object in the end of a JSON body or of an event stream."""
    places = [found.end() for found in _USAGE.finditer(end)]
    if not places:
        return None
    text = end[places[-1] :].decode("utf-8", "replace")
    try:
        usage, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):  # broken, a number too long, nested without end
        return None
    return _read(usage)


def _read(usage: dict[str, Any]) -> ToldUsage | None:
    """Chat's words or those of responses, whichever there are."""
    given = _count(usage, "prompt_tokens", "input_tokens")
    if given is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    return ToldUsage(
        input_tokens=given,
        cached_tokens=cached or 0,
        output_tokens=_count(usage, "completion_tokens", "output_tokens") or 0,
    )


def _count(values: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
