"""Finds the part of a JSON schema that cannot be compiled, and says why in a sentence.

The native code reports neither. So parts of the schema are compiled one by one. The innermost part
that fails for the same reason is reported, with the keyword without which it does not fail. Other
grammars wait meanwhile, so the number and time of trials are bounded. Beyond these bounds, a larger
part is reported.
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
"""Tries to compile a schema; returns the error message, or None if it compiles."""

_RULE = re.compile(r"^(?P<rule>\w+)(?:\[[^\]]*\])?: %json (?P<schema>\{.*\})$", re.MULTILINE)
_MAX_TRIALS = 200
_TRIALS_S = 1.0
_decoder = json.JSONDecoder()
_KEYWORDS_OF_MAPPINGS = ("properties", "patternProperties", "$defs")
_KEYWORDS_OF_LISTS = ("allOf", "anyOf", "prefixItems")
_KEYWORDS_OF_SCHEMAS = ("items", "additionalProperties")
_UNSATISFIABLE = "no value satisfies it"
_UNSUPPORTED = "a part of it is not supported"
_EXPLANATIONS = (
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
    """The invalid part of a schema. `location` is the rule of the grammar with a JSON pointer into
    the schema, `sentence` says why the part is invalid."""

    location: str
    sentence: str


def find_invalid_schema(grammar: str, try_compile: TryCompile) -> InvalidSchema | None:
    """Finds the invalid schema of a grammar; None if the error is not in a schema."""
    trials = _Trials(try_compile)
    for found in _RULE.finditer(grammar):
        schema, _ = _decoder.raw_decode(found["schema"])  # the rule may go on after it
        reason = trials.reason(schema)
        if reason is not None:
            pointer = _innermost(schema, reason, trials)
            steps = [str(step).replace("~", "~0").replace("/", "~1") for step in pointer]
            return InvalidSchema(
                location="/".join([found["rule"], *steps]),
                sentence=f"No answer can be constrained to this schema: {reason}.",
            )
    return None


class _Trials:
    """Runs a bounded number of trials in a bounded time; the last one may exceed that time."""

    def __init__(self, try_compile: TryCompile) -> None:
        self._try_compile = try_compile
        self._remaining = _MAX_TRIALS
        self._end = time.monotonic() + _TRIALS_S

    @property
    def is_over(self) -> bool:
        """True if no further trial is allowed."""
        return not self._remaining or time.monotonic() > self._end

    def reason(self, schema: JsonValue) -> str | None:
        """Returns why the schema does not compile; None if it does, or if no trial is left."""
        if self.is_over:
            return None
        self._remaining -= 1
        reason = self._try_compile(schema)
        return None if reason is None else _explain(reason)


def _innermost(schema: JsonValue, reason: str, trials: _Trials) -> list[str | int]:
    shared = {name: schema[name] for name in ("$defs", "x-guidance") if name in schema}
    pointer: list[str | int] = []
    innermost = schema
    while True:
        for steps, inner in _parts(innermost, only_required=reason == _UNSATISFIABLE):
            if isinstance(inner, dict) and trials.reason({**shared, **inner}) == reason:
                pointer += steps
                innermost = inner
                break
        else:
            return [*pointer, *_keyword(innermost, shared, reason, trials)]


def _parts(
    schema: JsonValue, *, only_required: bool
) -> Iterator[tuple[list[str | int], JsonValue]]:
    """Yields the paths and subschemas of a schema; with `only_required`, only those of values that
    every valid value has. Keywords whose value has a wrong type are left out."""
    for keyword in _KEYWORDS_OF_MAPPINGS[:1] if only_required else _KEYWORDS_OF_MAPPINGS:
        for name, part in _value(schema, keyword, {}).items():
            if not only_required or name in _value(schema, "required", []):
                yield [keyword, name], part
    for keyword in _KEYWORDS_OF_LISTS:
        for number, part in enumerate(_value(schema, keyword, [])):
            yield [keyword, number], part
    for keyword in () if only_required and not schema.get("minItems") else _KEYWORDS_OF_SCHEMAS:
        if keyword in schema:
            yield [keyword], schema[keyword]


def _value(schema: JsonValue, keyword: str, default: _Container) -> _Container:
    """Returns the value of a keyword, or `default` if it has another type."""
    found = schema.get(keyword)
    return found if isinstance(found, type(default)) else default


def _keyword(schema: JsonValue, shared: JsonValue, reason: str, trials: _Trials) -> list[str]:
    """Returns the keyword without which the schema does not fail for this reason, the first one if
    no single keyword is the cause; nothing if the trials are over."""
    names = [name for name in schema if name not in shared]
    for name in reversed(names):
        others = {other: value for other, value in schema.items() if other != name}
        if trials.reason({**shared, **others}) != reason:
            return [] if trials.is_over else [name]
    return names[:1]


def _explain(reason: str) -> str:
    return next((why for mark, why in _EXPLANATIONS if mark in reason), _UNSUPPORTED)
