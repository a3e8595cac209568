"""Negations of single keywords of JSON Schema, as alternative schemas. Pure functions."""

from collections.abc import Sequence
from typing import Any

from llm_backend.backends.schemas.formats import pattern_excluding
from llm_backend.backends.schemas.keywords import TYPES, types_of
from llm_backend.json_types import JsonValue

Alternatives = list[JsonValue]

NEGATED_BOUNDS: dict[str, tuple[str, str, int]] = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}
"""By the keyword of a bound: its type, and the keyword and the step of the negation."""


def negate_bound(keyword: str, value: float) -> Alternatives:
    """Returns the schemas of all values of the bound's type that violate it."""
    kind, other, step = NEGATED_BOUNDS[keyword]
    bound = value + step
    return [{"type": kind, other: bound}] if kind == "number" or bound >= 0 else [False]


def schemas_of_other_values(kind: str, values: Sequence[Any]) -> Alternatives | None:
    """Returns schemas of all values of a type but these."""
    if not values:
        return [{"type": kind}]
    if kind == "null":
        return []
    if kind == "boolean":
        remaining = [one for one in (False, True) if one not in values]
        return [{"enum": remaining}] if remaining else []
    if kind == "string":
        pattern = pattern_excluding(list(values))
        return None if pattern is None else [{"type": "string", "pattern": pattern}]
    if kind == "number" and len(values) == 1:
        [value] = values
        return [
            {"type": "number", "exclusiveMaximum": value},
            {"type": "number", "exclusiveMinimum": value},
        ]
    return None


def schemas_of_other_types(
    types: JsonValue, context: frozenset[str], *, are_integers: bool
) -> Alternatives | None:
    """Returns a schema of all values whose type is in `context` and none of `types`. None if
    `types` has integers and `context` numbers: no type is that of the other numbers alone."""
    names = [types] if isinstance(types, str) else types
    is_partly = "integer" in names and "number" not in names and not are_integers
    if is_partly and "number" in context:
        return None
    remaining = [one for one in TYPES if one in context and one not in types_of({"type": names})]
    return [{"type": remaining}] if remaining else [False]
