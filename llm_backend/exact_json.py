"""JSON with integers of any size: orjson if it is exact, otherwise the standard library.

orjson reads integers beyond 64 bits as floats and does not write them. Two refusals of orjson are
kept: numbers beyond every float, and lone surrogates.
"""

import json
from typing import Any

import orjson

_SAME_DIGIT = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19  # every integer beyond 64 bits has at least as many digits


def loads(data: bytes | bytearray | str) -> Any:  # Any: parsed JSON
    """Parses JSON; raises `orjson.JSONDecodeError` for invalid JSON."""
    value = orjson.loads(data)
    raw = data.encode() if isinstance(data, str) else data
    if _LONG not in raw.translate(_SAME_DIGIT):
        return value
    try:
        return json.loads(data)
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
