"""JSON with integers of any size: orjson if it is exact, otherwise the standard library.

orjson reads integers beyond 64 bits as floats and does not write them. orjson also rounds whole
numbers with a point or an exponent. Such a number is read as an integer here if its float, written
in the shortest form, is another number. Two refusals of orjson are kept: numbers beyond every
float, and lone surrogates.
"""

import gc
import json
import re
from collections.abc import Callable
from decimal import Decimal
from math import isinf
from typing import Any

import orjson

_LARGE_BYTES = 32 * 1024  # smaller texts are parsed in less than a millisecond
_STRETCH_BYTES = 1024 * 1024
_MANY_ITEMS = 10_000  # serialized in a few milliseconds
_PIECE_ITEMS = 4096  # serialized in a millisecond or two
_OVERLAP_BYTES = 24  # longer than what is searched for
_EXACT_LIMIT = 2**53  # floats of smaller whole numbers are exact
_WHOLE_DIGITS = 64  # digits of an integer with a point or an exponent, which may be short as text

# Numbers are searched for with every digit replaced by 0. A float changes no number of fewer than
# 16 digits. The exponent of a whole number moves the point behind all digits.
_SAME_DIGIT = bytes.maketrans(b"123456789E", b"000000000e")
_SAME_DIGIT_OR_POINT = bytes.maketrans(b"123456789.E", b"0000000000e")
_DIGITS = b"0" * 16
_LONG = (b"0" * 19, _DIGITS + b".")  # 19 digits may be beyond 64 bits
_RAISED = (_DIGITS + b"e0", _DIGITS + b"e+")
_ZERO_EXPONENT = re.compile(rb"-0+(?![\d.])")


class _TooLong(ValueError):
    """Whole number that would be far longer than its text."""


def loads(data: bytes | bytearray | str) -> Any:  # Any: parsed JSON
    """Parses JSON; raises `orjson.JSONDecodeError` for invalid JSON, and for a whole number of more
    than 64 digits that has a point or an exponent and that a float would change."""
    value = _parse(data)
    raw = data.encode() if isinstance(data, str) else data
    if not _may_round(raw):
        return value
    try:
        return json.loads(data, parse_int=_int, parse_float=read_decimal, object_hook=_object)
    except RecursionError as error:
        raise orjson.JSONDecodeError("it is nested too deeply", "", 0) from error
    except _TooLong as error:
        text = data if isinstance(data, str) else data.decode()
        message = f"whole numbers of more than {_WHOLE_DIGITS} digits have no point or exponent"
        raise orjson.JSONDecodeError(message, text, text.find(str(error))) from error


def parse_object(data: bytes | bytearray | str) -> dict[str, Any] | None:
    """Parses a JSON object as `loads` does; returns None for anything else."""
    try:
        value = loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def dumps(value: object) -> bytes:
    """Serializes to JSON; raises `orjson.JSONEncodeError` for values without a JSON form."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        if "64-bit" not in str(error):
            raise
    try:
        return encode_in_pieces(value, _encode).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise orjson.JSONEncodeError(str(error)) from error


def encode_in_pieces(
    value: object, encode: Callable[[object], str], comma: str = ",", colon: str = ":"
) -> str:
    """Serializes a value by `encode`, in many calls if it has many items: other threads can run
    between the calls, each of which holds the interpreter's lock for some 0.4 us per item.

    `comma` and `colon` are the separators that `encode` writes.
    """
    if not _has_many_items(value):
        return encode(value)
    pieces: list[str] = []

    def add(value: object) -> None:
        if isinstance(value, dict) and value and all(isinstance(name, str) for name in value):
            before = "{"
            for name, member in value.items():
                pieces.append(f"{before}{encode(name)}{colon}")
                add(member)
                before = comma
            pieces.append("}")
        elif isinstance(value, list) and value:
            before = "["
            for start in range(0, len(value), _PIECE_ITEMS):
                items = value[start : start + _PIECE_ITEMS]
                if not any(isinstance(item, (dict, list)) for item in items):
                    pieces.append(before + encode(items)[1:-1])
                    before = comma
                    continue
                for item in items:
                    pieces.append(before)
                    add(item)
                    before = comma
            pieces.append("]")
        else:
            pieces.append(encode(value))

    add(value)
    return "".join(pieces)


def read_decimal(text: str) -> int | float:
    """Returns a JSON number with a point or an exponent as float, or as its exact integer if the
    float is written as another number. Raises `ValueError` for integers above 64 digits."""
    value = float(text)
    if -_EXACT_LIMIT < value < _EXACT_LIMIT:
        return value
    if isinf(value):
        raise _TooLong(text)
    exact = Decimal(text)
    if exact != exact.to_integral_value() or exact == Decimal(repr(value)):
        return value
    if exact.adjusted() >= _WHOLE_DIGITS:
        raise _TooLong(text)
    return int(exact)


# One encoder for all values: making an encoder takes longer than encoding a short value.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _has_many_items(value: object) -> bool:
    unread = [value]
    for one in unread:  # grows in the loop
        if isinstance(one, str):
            continue
        if isinstance(one, dict):
            unread += one.values()
        elif isinstance(one, list):
            unread += one
        if len(unread) > _MANY_ITEMS:
            return True
    return False


def _parse(data: bytes | bytearray | str) -> Any:  # Any: parsed JSON
    """Parses JSON with the garbage collector off: on a large text it takes half of the time, though
    no value is in a reference cycle."""
    if len(data) < _LARGE_BYTES or not gc.isenabled():
        return orjson.loads(data)
    gc.disable()
    try:
        return orjson.loads(data)
    finally:
        gc.enable()


def _may_round(data: bytes | bytearray) -> bool:
    """True if there is a number, or digits in text, that orjson may have rounded."""
    for start in range(0, len(data), _STRETCH_BYTES):  # other threads can run between stretches
        stretch = data[start : start + _STRETCH_BYTES + _OVERLAP_BYTES]
        digits = stretch.translate(_SAME_DIGIT_OR_POINT)
        if _DIGITS not in digits:
            continue
        digits_without_points = stretch.translate(_SAME_DIGIT)
        if _contains(digits_without_points, _LONG):
            return True
        if _DIGITS + b"e" in digits and (
            _contains(digits, _RAISED) or _is_whole_lowered(digits_without_points, stretch)
        ):
            return True
    return False


def _is_whole_lowered(digits: bytes | bytearray, stretch: bytes | bytearray) -> bool:
    """True if a number that is long before its point may be whole despite a negative exponent."""
    if _DIGITS + b"0e" in digits:
        return True
    return _DIGITS + b"e-0" in digits and _ZERO_EXPONENT.search(stretch) is not None


def _contains(text: bytes | bytearray, parts: tuple[bytes, ...]) -> bool:
    return any(part in text for part in parts)


# Python functions, because the parser releases the interpreter's lock only in calls of such.


def _int(digits: str) -> int:
    return int(digits)


def _object(value: dict[str, Any]) -> dict[str, Any]:
    return value
