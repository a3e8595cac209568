"""JSON with integers of any size: orjson where it is exact, the standard library where it is not.

orjson reads integers beyond 64 bits as floats and does not write them. Both of its refusals stay
what they are: no number that no float comes near, no lone surrogate.
"""

import json
from typing import Any

import orjson

__all__ = ["dumps", "loads"]

_SAME_DIGIT = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19  # every integer beyond 64 bits has as many digits, or more


def loads(data: bytes | bytearray | str) -> Any:  # Any: parsed JSON
    """The value; raises `orjson.JSONDecodeError` for what is not JSON."""
    value = orjson.loads(data)
    raw = data.encode() if isinstance(data, str) else data
    if _LONG not in raw.translate(_SAME_DIGIT):
        return value
    try:
        return json.loads(data)
    except RecursionError as error:
        raise orjson.JSONDecodeError("it is nested too deeply", "", 0) from error


def dumps(value: object) -> bytes:
    """The value as JSON; raises `orjson.JSONEncodeError` for what JSON cannot say."""
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
