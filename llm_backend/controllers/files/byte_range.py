"""Parses the `Range` header (RFC 9110, 14); pure."""

import re
from dataclasses import dataclass

from llm_backend.errors import RangeNotSatisfiable

_ONE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """The bytes from `start` until before `end`."""

    start: int
    end: int


def byte_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """Parses a range; returns None for the whole file: no range, several, or a malformed one.

    Raises `RangeNotSatisfiable` for a range that begins after the last byte.
    """
    match = _ONE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(0, size_bytes - int(match[2])), size_bytes
    else:
        start, end = int(match[1]), min(int(match[2] or size_bytes) + 1, size_bytes)
        if match[2] and int(match[2]) < start:
            return None
    if start >= size_bytes:
        raise RangeNotSatisfiable(size_bytes)
    return ByteRange(start=start, end=end)
