"""JSON with integers of any size: orjson if it is exact, otherwise the standard library.

orjson reads integers beyond 64 bits as floats and does not write them. Two refusals of orjson are
kept: numbers beyond every float, and lone surrogates.
"""

import json
from typing import Any

import orjson

_SAME_DIGIT = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19  # every integer beyond 64 bits has at least as many digits
_STRETCH_BYTES = 1024 * 1024


def loads(data: bytes | bytearray | str) -> Any:  # Any: parsed JSON
    """Parses JSON; raises `orjson.JSONDecodeError` for invalid JSON."""
    value = orjson.loads(data)
    raw = data.encode() if isinstance(data, str) else data
    if not _has_long_number(raw):
        return value
    try:
        return json.loads(data, parse_int=_int, parse_float=_float, object_hook=_object)
    except RecursionError as error:
        raise orjson.JSONDecodeError("it is nested too deeply", "", 0) from error


def dumps(value: object) -> bytes:
    """Serializes to JSON; raises `orjson.JSONEncodeError` for values without a JSON form."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        if "64-bit" not in str(error):
            raise
    try:
        return json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        ).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise orjson.JSONEncodeError(str(error)) from error


def _has_long_number(data: bytes | bytearray) -> bool:
    """True if there is a number, or digits in text, that orjson may have read as a float."""
    for start in range(0, len(data), _STRETCH_BYTES):  # other threads can run between two
        stretch = data[start : start + _STRETCH_BYTES + len(_LONG)]
        if _LONG in stretch.translate(_SAME_DIGIT):
            return True
    return False


# The parser holds the interpreter lock except in calls of Python functions.


def _int(digits: str) -> int:
    return int(digits)


def _float(digits: str) -> float:
    return float(digits)


def _object(value: dict[str, Any]) -> dict[str, Any]:
    return value
