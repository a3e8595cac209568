"""Finds the part of a JSON schema that cannot be compiled, and says why in a sentence.

The native code reports neither. Parts of the schema are tried one by one: the innermost that fails
for the same reason is reported, and the keyword without which it does not fail. Other grammars wait
meanwhile, so the number of trials and their time are bounded; then a larger part is reported.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from llm_backend.json_types import JsonValue

_Container = TypeVar("_Container", dict[str, JsonValue], list[JsonValue])

TryCompile = Callable[[JsonValue], str | None]
"""Function that tries to compile a schema: returns the error, or None if it compiles."""

_RULE = re.compile(r"^(?P<rule>\w+)(?:\[[^\]]*\])?: %json (?P<schema>\{.*\})$", re.MULTILINE)
_MOST_TRIALS = 200
_TRIALS_S = 1.0
_decoder = json.JSONDecoder()
_NAMED = ("properties", "patternProperties", "$defs")
_LISTED = ("allOf", "anyOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_UNSATISFIABLE = "no value satisfies it"
_OTHER = "a part of it is not supported"
_SENTENCES = (
    ("Unsatisfiable", _UNSATISFIABLE),
    ("unsatisfiable", _UNSATISFIABLE),
    ("incompatible types", _UNSATISFIABLE),
    ("lookaround", "its regular expression looks ahead or behind, which is not supported"),
    ("not disjoint", "expressions of `patternProperties` may not match the same name"),
    ("are disjoint", "it cannot be decided if its `patternProperties` match the same name"),
    ("regex", "its regular expression, or its range of numbers, is not supported"),
    ("multipleOf", "its `multipleOf` has too many digits"),
    (
        "min/maxProperties",
        "`minProperties` and `maxProperties` are not supported beside optional properties",
    ),
    ("circular references", "it refers to itself, and has other keywords beside the `$ref`"),
    ("stack level", "its parts are combined too deeply"),
    ("too large", "its parts, combined, are too many"),
    ("too complex", "its parts, combined, are too many"),
    ("fuel", "its expressions, combined, are too complex"),
    ("limit", "its parts, combined, are too many"),
    ("infinite", "it refers to nothing but itself"),
)


@dataclass(frozen=True, kw_only=True)
class InvalidSchema:
    """The invalid part: `location` is the rule of a grammar with a JSON pointer into its schema."""

    location: str
    sentence: str


def find_invalid_schema(grammar: str, reason_of: TryCompile) -> InvalidSchema | None:
    """Finds the invalid schema of a grammar; None if the error is not in a schema."""
    tries = _Trials(reason_of)
    for found in _RULE.finditer(grammar):
        schema, _ = _decoder.raw_decode(found["schema"])  # the rule may go on after it
        reason = tries.reason(schema)
        if reason is not None:
            pointer = _innermost(schema, reason, tries)
            steps = [str(step).replace("~", "~0").replace("/", "~1") for step in pointer]
            return InvalidSchema(
                location="/".join([found["rule"], *steps]),
                sentence=f"No answer can be constrained to this schema: {reason}.",
            )
    return None


class _Trials:
    """Bounds the number and time of trials; one trial may take as long as compiling a grammar."""

    def __init__(self, reason_of: TryCompile) -> None:
        self._reason_of = reason_of
        self._remaining = _MOST_TRIALS
        self._end = time.monotonic() + _TRIALS_S

    @property
    def is_over(self) -> bool:
        """True if no further trial is allowed."""
        return not self._remaining or time.monotonic() > self._end

    def reason(self, schema: JsonValue) -> str | None:
        """The reason for which the schema does not compile; None if it does or is not tried."""
        if self.is_over:
            return None
        self._remaining -= 1
        reason = self._reason_of(schema)
        return None if reason is None else _explain(reason)


def _innermost(schema: JsonValue, reason: str, tries: _Trials) -> list[str | int]:
    around = {name: schema[name] for name in ("$defs", "x-guidance") if name in schema}
    pointer: list[str | int] = []
    part = schema
    while True:
        for steps, inner in _parts(part, is_needed=reason == _UNSATISFIABLE):
            if isinstance(inner, dict) and tries.reason({**around, **inner}) == reason:
                pointer += steps
                part = inner
                break
        else:
            return [*pointer, *_keyword(part, around, reason, tries)]


def _parts(schema: JsonValue, *, is_needed: bool) -> Iterator[tuple[list[str | int], JsonValue]]:
    """The subschemas of a schema; if `is_needed`, only those of required values. Keywords without
    subschemas, which a client wrote wrongly, are left out."""
    for keyword in _NAMED[:1] if is_needed else _NAMED:
        for name, part in _value(schema, keyword, {}).items():
            if not is_needed or name in _value(schema, "required", []):
                yield [keyword, name], part
    for keyword in _LISTED:
        for number, part in enumerate(_value(schema, keyword, [])):
            yield [keyword, number], part
    for keyword in () if is_needed and not schema.get("minItems") else _SINGLE:
        if keyword in schema:
            yield [keyword], schema[keyword]


def _value(schema: JsonValue, keyword: str, default: _Container) -> _Container:
    """The value of a keyword, or the default for one of another type."""
    found = schema.get(keyword)
    return found if isinstance(found, type(default)) else default


def _keyword(schema: JsonValue, around: JsonValue, reason: str, tries: _Trials) -> list[str]:
    names = [name for name in schema if name not in around]
    for name in reversed(names):
        rest = {other: value for other, value in schema.items() if other != name}
        if tries.reason({**around, **rest}) != reason:
            return [] if tries.is_over else [name]
    return names[:1]


def _explain(reason: str) -> str:
    return next((why for mark, why in _SENTENCES if mark in reason), _OTHER)
