"""Values of JSON: their types, and their equality, which differs from that of Python."""

from collections.abc import Iterable

from llm_backend.json_types import JsonValue


def type_of_value(value: JsonValue) -> str:
    """Returns the name of a value's type; `number` for integers, too."""
    if isinstance(value, bool):
        return "boolean"
    kinds = {dict: "object", list: "array", str: "string", type(None): "null"}
    return kinds.get(type(value), "number")


def distinct(values: Iterable[JsonValue], limit: int) -> list[JsonValue] | None:
    """Returns the values without repeats; None if they are more than `limit`."""
    found: list[JsonValue] = []
    for value in values:
        if not any(are_equal(value, one) for one in found):
            found.append(value)
        if len(found) > limit:
            return None
    return found


def are_equal(one: JsonValue, other: JsonValue) -> bool:
    """Compares JSON values; unlike in Python, true does not equal 1."""
    if type_of_value(one) != type_of_value(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    return bool(one == other)
