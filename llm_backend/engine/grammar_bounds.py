"""What a grammar may hold, checked before native code reads it. Pure.

The native code bounds its own work well, with exceptions that were measured: long expressions make
every step slow, `multipleOf` of a large number takes seconds to compile, and the time of optional
properties grows with their square.
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from llm_backend.engine.messages import GrammarLimits

__all__ = ["GrammarError", "check_grammar"]

_PARTS = re.compile(
    r"""(?P<comment>(?://|\#).*)
    |   (?P<literal>"(?:\\.|[^"\\\n])*+" | /(?:\\.|[^/\\\n])++/)
    |   (?P<json>%json)
    |   (?P<meet>&)
    |   \\.  # else each of a row would be a beginning
    """,
    re.VERBOSE,
)
_COMBINING = {"allOf", "anyOf", "oneOf", "$ref"}
_ANNOTATIONS = {"$defs", "definitions", "title", "description", "default", "$schema", "x-guidance"}
_SPACE = re.compile(r"\s*")
_decoder = json.JSONDecoder()


class GrammarError(Exception):
    """The grammar cannot be followed; the message is one sentence that says why."""


def check_grammar(grammar: str, limits: GrammarLimits) -> None:
    """Raise `GrammarError` for a grammar in Lark that goes beyond `limits`."""
    place = literals = meeting = 0
    while found := _PARTS.search(grammar, place):
        place = found.end()
        if found.lastgroup == "literal":
            literals += 1
            _check("an expression's characters", place - found.start(), limits.literal)
        elif found.lastgroup == "meet":
            meeting += 1
        elif found.lastgroup == "json":
            place = _check_schema(grammar, place, limits)
    _check("the number of expressions", literals, limits.literals)
    _check("the number of `&`", meeting, limits.meet)


def _check_schema(grammar: str, place: int, limits: GrammarLimits) -> int:
    """Check the JSON that begins at a place; gives where it ends."""
    start = _SPACE.match(grammar, place).end()  # type: ignore[union-attr]  # it matches anywhere
    try:
        schema, end = _decoder.raw_decode(grammar, start)
    except (ValueError, RecursionError) as error:
        raise GrammarError("The grammar holds `%json` without JSON that can be read.") from error
    properties = choices = patterns = 0
    multiple, meets = 1, False
    for depth, keyword, value, is_alone in _keywords(schema):
        meets = meets or (keyword in _COMBINING and not is_alone)
        _check("a schema's nesting", depth, limits.nesting)
        match keyword, value:
            case "properties", dict():
                properties += len(value)
            case "enum", list():
                choices += len(value)
            case "pattern", str():
                patterns += 1
                _check("a pattern's characters", len(value), limits.literal)
            case "patternProperties", dict():
                patterns += len(value)
                _check("a pattern's characters", max(map(len, value), default=0), limits.literal)
            case "multipleOf", int() | float() if not isinstance(value, bool):
                multiple = math.lcm(multiple, _digits(value))
    _check("a schema's properties", properties, limits.properties)
    _check("a schema's patterns under `allOf` and the like", patterns * meets, limits.meet)
    _check("a schema's enum values", choices, limits.choices)
    _check("the digits of a schema's multipleOf, taken together,", multiple, limits.multiple)
    return end


def _keywords(schema: Any) -> Iterator[tuple[int, str, Any, bool]]:  # Any: JSON
    """Everything in a schema that is named: how deep it lies, its name and value, and whether it
    says alone what its schema is."""
    unread: list[tuple[int, Any]] = [(0, schema)]
    while unread:
        depth, value = unread.pop()
        if isinstance(value, dict):
            alone = len(value.keys() - _ANNOTATIONS) == 1
            for name, part in value.items():
                yield depth, name, part, alone and not _joins(name, part)
            unread += [(depth + 1, part) for part in value.values()]
        elif isinstance(value, list):
            unread += [(depth + 1, part) for part in value]


def _joins(name: str, value: Any) -> bool:  # Any: JSON
    return name == "allOf" and isinstance(value, list) and len(value) > 1


def _digits(number: float) -> int:
    """A number's digits without its point and the zeros at its end: 0.0250 has 25."""
    if not number or (isinstance(number, float) and not math.isfinite(number)):
        return 1  # which the native code refuses
    digits = "".join(map(str, Decimal(str(number)).as_tuple().digits))
    return int(digits.rstrip("0"))


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise GrammarError(f"The grammar is refused: {what} may be {limit} at most, not {count}.")
