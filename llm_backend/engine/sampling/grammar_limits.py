"""Limits of grammars, checked before the native code parses them. Pure.

The native code bounds its own work well, with exceptions, each of which has a check below. Among
them, measured: long expressions make every step slow; `multipleOf` of a large number takes seconds
to compile; the time of optional properties grows with the square of their number.
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from llm_backend.engine.messages import GrammarLimits
from llm_backend.engine.sampling.pattern_intersections import count_intersections

_ELEMENT = re.compile(
    r"""(?P<comment>(?://|\#).*)
    |   (?P<literal>"(?:\\.|[^"\\\n])*+" | /(?:\\.|[^/\\\n])++/)
    |   (?P<json>%json)
    |   (?P<and>&)
    |   \\.  # an escaped quote or slash begins no literal: trying each of many takes quadratic time
    """,
    re.VERBOSE,
)
_COMBINING = {"allOf", "anyOf", "oneOf", "$ref"}
_ANNOTATIONS = {"$defs", "definitions", "title", "description", "default", "$schema", "x-guidance"}
_SPACE = re.compile(r"\s*")
_RULE = re.compile(r"(\w+)(?:\[[^\]]*\])?: ")
_LOWEST_INT64 = -(2**63)
_decoder = json.JSONDecoder()


class GrammarError(Exception):
    """The grammar is invalid or too large; the message is one sentence that says why. `location` is
    the rule of the grammar with a JSON pointer into its schema, if that is invalid."""

    def __init__(self, message: str, location: str | None = None) -> None:
        super().__init__(message)
        self.location = location


def check_grammar(grammar: str, limits: GrammarLimits) -> None:
    """Raises `GrammarError` for a grammar in Lark that exceeds `limits`."""
    offset = literals = intersections = 0
    while found := _ELEMENT.search(grammar, offset):
        offset = found.end()
        if found.lastgroup == "literal":
            literals += 1
            _check("an expression's characters", offset - found.start(), limits.literal)
        elif found.lastgroup == "and":
            intersections += 1
        elif found.lastgroup == "json":
            offset = _check_schema(grammar, offset, limits)
    _check("the number of expressions", literals, limits.literals)
    _check("the number of `&`", intersections, limits.intersections)


def _check_schema(grammar: str, offset: int, limits: GrammarLimits) -> int:
    """Checks the JSON that begins at `offset`; returns the offset of its end."""
    start = _SPACE.match(grammar, offset).end()  # type: ignore[union-attr]  # it matches anywhere
    try:
        schema, end = _decoder.raw_decode(grammar, start)
    except (ValueError, RecursionError) as error:
        raise GrammarError("The grammar holds `%json` without JSON that can be read.") from error
    rule = _RULE.match(grammar, grammar.rfind("\n", 0, offset) + 1)
    _SchemaCounts(limits, rule[1] if rule is not None else None).check(schema)
    return end


class _SchemaCounts:
    """Counters of one schema; `rule` is the rule of the grammar that holds it."""

    def __init__(self, limits: GrammarLimits, rule: str | None) -> None:
        self._limits = limits
        self._rule = rule
        self._properties = self._choices = self._patterns = 0
        self._multiple = 1

    def check(self, schema: Any) -> None:  # Any: JSON
        """Raises `GrammarError` for a schema that exceeds the limits."""
        combines = False
        for pointer, keyword, value, is_alone in _keywords(schema):
            combines = combines or (keyword in _COMBINING and not is_alone)
            location = (*pointer, keyword)
            self._check("a schema's nesting", len(pointer), self._limits.nesting, location)
            self._count(keyword, value, location)
        if _has_lowest_integer(schema):
            raise GrammarError(
                "The grammar is refused: a schema's numbers must be greater than -2^63."
            )
        if combines and self._patterns > self._limits.intersections:
            intersections = count_intersections(schema)
            intersections = self._patterns if intersections is None else intersections
            self._check(
                "a schema's patterns under `allOf` and the like, for one text,",
                intersections,
                self._limits.intersections,
                (),
            )

    def _count(self, keyword: str, value: Any, location: tuple[str | int, ...]) -> None:
        limits = self._limits
        match keyword, value:
            case "properties", dict():
                self._properties += len(value)
                self._check("a schema's properties", self._properties, limits.properties, location)
            case "enum", list():
                self._choices += len(value)
                self._check("a schema's enum values", self._choices, limits.choices, location)
            case "pattern", str():
                self._patterns += 1
                self._check("a pattern's characters", len(value), limits.literal, location)
            case "patternProperties", dict():
                self._patterns += len(value)
                longest = max(map(len, value), default=0)
                self._check("a pattern's characters", longest, limits.literal, location)
            case "multipleOf", int() | float() if not isinstance(value, bool):
                self._multiple = math.lcm(self._multiple, _significand(value))
                subject = "the digits of a schema's multipleOf, taken together,"
                self._check(subject, self._multiple, limits.multiple, location)

    def _check(self, subject: str, count: int, limit: int, pointer: tuple[str | int, ...]) -> None:
        location = None if self._rule is None else "/".join([self._rule, *map(_escape, pointer)])
        _check(subject, count, limit, location)


def _has_lowest_integer(schema: Any) -> bool:  # Any: JSON
    """True if a number is not above the lowest 64-bit integer. The native code cannot negate that
    one, and would loop for ever."""
    pending = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, int | float) and value <= _LOWEST_INT64:
            return True
    return False


def _escape(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")


def _keywords(schema: Any) -> Iterator[tuple[tuple[str | int, ...], str, Any, bool]]:  # Any: JSON
    """Yields every keyword in a schema: the pointer to its object, its name and value, and True if
    it is the only constraint of its schema."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), schema)]
    while pending:
        pointer, value = pending.pop()
        if isinstance(value, dict):
            is_single = len(value.keys() - _ANNOTATIONS) == 1
            for name, part in value.items():
                yield pointer, name, part, is_single and not _has_several_members(name, part)
            pending += [((*pointer, name), part) for name, part in value.items()]
        elif isinstance(value, list):
            pending += [((*pointer, number), part) for number, part in enumerate(value)]


def _has_several_members(name: str, value: Any) -> bool:  # Any: JSON
    return name == "allOf" and isinstance(value, list) and len(value) > 1


def _significand(number: float) -> int:
    """Returns a number's digits as an integer, without trailing zeros: 25 for 0.0250."""
    if not number or (isinstance(number, float) and not math.isfinite(number)):
        return 1  # the native code refuses such a number
    digits = "".join(map(str, Decimal(str(number)).as_tuple().digits))
    return int(digits.rstrip("0"))


def _check(subject: str, count: int, limit: int, location: str | None = None) -> None:
    if count > limit:
        message = f"The grammar is refused: {subject} may be {limit} at most, not {count}."
        raise GrammarError(message, location)
