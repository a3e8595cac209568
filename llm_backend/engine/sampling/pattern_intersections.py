"""The number of expressions of a schema that apply to the same text. Pure.

Expressions are intersected where schemas are combined: each text of one value must match all of
them. The native code makes one automaton of them, which grows with their product.
"""

from dataclasses import dataclass, field
from typing import Any

from llm_backend.json_types import JsonValue

_MAX_STEPS = 20_000
_MAX_DEPTH = 40
_NAMES = "\0names"
_UNSUPPORTED = {"oneOf", "additionalItems"}  # not supported in schemas of responses


@dataclass
class _ValueExpressions:
    """Number of expressions for one value, and for the values in it: those with a name or number,
    and all others."""

    own: int = 0
    parts: dict[str, "_ValueExpressions"] = field(default_factory=dict)
    others: "_ValueExpressions | None" = None

    def max_count(self) -> int:
        inner = [*self.parts.values(), *([self.others] if self.others else [])]
        return max([self.own, *(one.max_count() for one in inner)])


class _CannotCount(Exception):
    """Counting needs more than `_MAX_STEPS` steps, or the schema has an unsupported keyword."""


def count_intersections(schema: JsonValue) -> int | None:
    """Returns the maximum number of expressions that apply to one value; None if they cannot be
    counted."""
    try:
        return _IntersectionCounter(schema.get("$defs", {})).count(schema, 0).max_count()
    except (_CannotCount, AttributeError, TypeError):  # or a malformed schema: it is not compiled
        return None


class _IntersectionCounter:
    def __init__(self, definitions: JsonValue) -> None:
        self._definitions = definitions
        self._remaining_steps = _MAX_STEPS
        self._open_references: list[str] = []

    def count(self, schema: JsonValue, depth: int) -> _ValueExpressions:
        """Expressions for a value that `schema` describes."""
        self._step()
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return _ValueExpressions()
        if _UNSUPPORTED & schema.keys() or isinstance(schema.get("items"), list):
            raise _CannotCount
        names = schema.get("patternProperties", {})
        found = _ValueExpressions(own=("pattern" in schema) + ("format" in schema))
        self._count_parts(found, schema, depth + 1)
        if names:
            found.parts[_NAMES] = _ValueExpressions(own=len(names))
        for part in schema.get("allOf", ()):
            found = self._both(found, self.count(part, depth))
        if "anyOf" in schema:
            any_of = _ValueExpressions()
            for part in schema["anyOf"]:
                any_of = self._either(any_of, self.count(part, depth))
            found = self._both(found, any_of)
        if "$ref" in schema:
            found = self._both(found, self._target(schema["$ref"], depth))
        return found

    def _count_parts(self, value: _ValueExpressions, schema: JsonValue, depth: int) -> None:
        for name, part in schema.get("properties", {}).items():
            value.parts[name] = self.count(part, depth)
        for number, part in enumerate(schema.get("prefixItems", ())):
            value.parts[f"\0{number}"] = self.count(part, depth)
        others = [*schema.get("patternProperties", {}).values()]
        others += [schema[name] for name in ("items", "additionalProperties") if name in schema]
        for part in others:
            found = self.count(part, depth)
            value.others = found if value.others is None else self._both(value.others, found)

    def _target(self, reference: str, depth: int) -> _ValueExpressions:
        name = str(reference).removeprefix("#/$defs/")
        if name not in self._definitions:
            raise _CannotCount
        if name in self._open_references:
            return _ValueExpressions()
        self._open_references.append(name)
        try:
            return self.count(self._definitions[name], depth)
        finally:
            self._open_references.pop()

    def _both(self, one: _ValueExpressions, other: _ValueExpressions) -> _ValueExpressions:
        return self._join(one, other, one.own + other.own, self._both)

    def _either(self, one: _ValueExpressions, other: _ValueExpressions) -> _ValueExpressions:
        return self._join(one, other, max(one.own, other.own), self._either)

    def _join(
        self, one: _ValueExpressions, other: _ValueExpressions, own: int, join: Any
    ) -> _ValueExpressions:
        self._step()
        if not (other.own or other.parts or other.others):
            return one
        empty = _ValueExpressions()
        parts = {
            name: join(
                one.parts.get(name, one.others or empty),
                other.parts.get(name, other.others or empty),
            )
            for name in dict.fromkeys([*one.parts, *other.parts])
        }
        others = None
        if one.others or other.others:
            others = join(one.others or empty, other.others or empty)
        return _ValueExpressions(own=own, parts=parts, others=others)

    def _step(self) -> None:
        self._remaining_steps -= 1
        if self._remaining_steps < 0:
            raise _CannotCount
