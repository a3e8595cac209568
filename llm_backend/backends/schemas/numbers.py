"""Numeric keywords for llguidance, whose numbers are 64-bit floats, and integers below 2^63.

A bound that no float equals is moved inward to the next float, so that answers stay valid. Beyond
2^53 floats are too coarse, so an open range ends there.
"""

import math
from decimal import Decimal
from fractions import Fraction
from typing import cast

from llm_backend.backends.schemas.keywords import (
    Path,
    Schema,
    SchemaUnsupported,
    is_number,
)
from llm_backend.json_types import JsonValue

_EXACT_LIMIT = 2**53
_BOUND_LIMIT = 10**17  # llguidance misreads larger numbers
_MULTIPLE_LIMIT = 2**32 - 1
_DECIMALS_LIMIT = 9
_LEAST = 1e-9  # next to an excluded zero
_EXCLUSIVE = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


def convert_bounds(schema: Schema, path: Path) -> dict[str, JsonValue]:
    """Rewrites `minimum`, `maximum` and the exclusive bounds to floats, which never widen the
    range. Raises `SchemaUnsupported` if the range is empty."""
    low, low_keyword = _strictest_bound(schema, "minimum", 1)
    high, high_keyword = _strictest_bound(schema, "maximum", -1)
    if low is not None and low < -_EXACT_LIMIT and (high is None or high > -_EXACT_LIMIT):
        low, low_keyword = -_EXACT_LIMIT, "minimum"
    if high is not None and high > _EXACT_LIMIT and (low is None or low < _EXACT_LIMIT):
        high, high_keyword = _EXACT_LIMIT, "maximum"
    converted: dict[str, JsonValue] = {}
    for bound, keyword, toward in ((low, low_keyword, math.inf), (high, high_keyword, -math.inf)):
        if bound is not None:
            if abs(bound) > _BOUND_LIMIT:
                raise _too_large(keyword, path)
            converted |= _round_inward(bound, keyword, toward)
    if low is not None and high is not None and low <= high:
        first, last = (converted.get(name) for name in ("minimum", "maximum"))
        if first is not None and last is not None and first > last:
            raise _too_large(low_keyword, path)
        if 0 < high - low < 1 and schema.get("type") != "integer":
            _exclude_whole_bounds(converted, low, high)
    return converted


def _exclude_whole_bounds(converted: dict[str, JsonValue], low: float, high: float) -> None:
    """Replaces an exclusive whole bound by an inclusive one just within it: llguidance allows the
    bound itself if the other one is less than 1 farther from zero."""
    for keyword, bound, other in (("minimum", low, high), ("maximum", high, low)):
        if abs(bound) > abs(other) or not float(bound).is_integer():
            continue
        if converted.pop(_EXCLUSIVE[keyword], None) is None:
            continue
        inner = math.nextafter(bound, other)
        if not bound:  # the floats next to zero are too small to be written
            inner = math.copysign(min(_LEAST, abs(other) / 2), other)
        converted[keyword] = inner


def integers_within(schema: Schema, limit: int) -> list[int] | None:
    """Returns the integers that the bounds of a schema allow; None if there are more than `limit`,
    or if llguidance cannot write one of them exactly."""
    (low, low_keyword), (high, high_keyword) = (
        _strictest_bound(schema, "minimum", 1),
        _strictest_bound(schema, "maximum", -1),
    )
    if low is None or high is None or max(abs(low), abs(high)) > _EXACT_LIMIT:
        return None
    first = math.floor(low) + 1 if low_keyword == "exclusiveMinimum" else math.ceil(low)
    last = math.ceil(high) - 1 if high_keyword == "exclusiveMaximum" else math.floor(high)
    return list(range(first, last + 1)) if last - first < limit else None


def _strictest_bound(schema: Schema, keyword: str, sign: int) -> tuple[int | float | None, str]:
    """Returns the narrower of the inclusive and the exclusive bound. In old drafts of JSON Schema
    the exclusive bound is a boolean, which makes the inclusive one exclusive."""
    bound, exclusive = schema.get(keyword), schema.get(_EXCLUSIVE[keyword])
    if exclusive is True and is_number(bound):
        return bound, _EXCLUSIVE[keyword]
    if not is_number(exclusive):
        return (bound, keyword) if is_number(bound) else (None, keyword)
    if is_number(bound) and sign * cast("float", bound) > sign * cast("float", exclusive):
        return bound, keyword
    return exclusive, _EXCLUSIVE[keyword]


def _round_inward(bound: float, keyword: str, toward: float) -> dict[str, JsonValue]:
    """Returns the nearest float within the bound, as an integer if it is one. Beyond 2^53, where
    llguidance cannot distinguish adjacent integers, the result is inclusive."""
    number, is_exclusive = float(bound), keyword in _EXCLUSIVE.values()
    if abs(bound) >= _EXACT_LIMIT:
        while not _is_within(number, bound, toward, is_exclusive):
            number = math.nextafter(number, toward)
        keyword = "minimum" if toward > 0 else "maximum"
    elif not _is_within(number, bound, toward, is_exclusive=False):
        number = math.nextafter(number, toward)
    return {keyword: int(number) if number.is_integer() else number}


def _is_within(number: float, bound: float, toward: float, is_exclusive: bool) -> bool:
    if number == bound:
        return not is_exclusive
    return number > bound if toward > 0 else number < bound


def _too_large(keyword: str, path: Path) -> SchemaUnsupported:
    return SchemaUnsupported(
        f"`{keyword}` lies so far beyond 2^53 that no grammar enforces it exactly; bounds "
        "may go up to 10^17.",
        (*path, keyword),
    )


def is_representable(value: JsonValue) -> bool:
    """Returns True unless the value is a number that llguidance does not write exactly."""
    if not is_number(value) or abs(value) <= _EXACT_LIMIT:
        return True
    return abs(value) < 2**63 and isinstance(value, int) and int(float(value)) == value


def check_value(value: JsonValue, path: Path) -> None:
    """Raises `SchemaUnsupported` if a value is or contains a number that is not representable."""
    unread: list[tuple[Path, JsonValue]] = [(path, value)]
    while unread:
        location, one = unread.pop()
        if isinstance(one, dict):
            unread += [((*location, name), part) for name, part in one.items()]
        elif isinstance(one, list):
            unread += [((*location, number), part) for number, part in enumerate(one)]
        elif not is_representable(one):
            keyword = "enum" if "enum" in path[-2:] else "const"
            raise SchemaUnsupported(
                f"`{keyword}` has a number beyond 2^53 here, which no grammar enforces "
                "exactly; give it as a string.",
                location,
            )


def convert_multiple(value: float, *, is_integer: bool) -> int | float | None:
    """Returns a `multipleOf` that llguidance reads correctly and that is a multiple of `value`;
    None if only zero would be valid."""
    exact = Fraction(Decimal(str(value)))
    if is_integer:
        exact = Fraction(exact.numerator)
    if exact.denominator == 1:
        return int(exact) if 0 < exact <= _MULTIPLE_LIMIT else None
    number, decimals = float(value), 0
    while number != int(number) and decimals <= _DECIMALS_LIMIT:
        number, decimals = number * 10, decimals + 1
    is_read = number == int(number) and Fraction(int(number), 10**decimals) == exact
    if is_read and number <= _MULTIPLE_LIMIT:
        return value
    return convert_multiple(exact.numerator, is_integer=True)
