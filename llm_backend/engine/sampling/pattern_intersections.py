"""The number of expressions of a schema that apply to the same text. Pure.

Expressions are intersected where schemas are combined: each text of one value must match all of
them. The native code makes one automaton of them, which grows with their product.
"""

from dataclasses import dataclass, field
from typing import Any

from llm_backend.json_types import JsonValue

_MOST_STEPS = 20_000
_MOST_DEPTH = 40
_NAMES = "\0names"
_UNSUPPORTED = {"oneOf", "additionalItems"}  # not supported in schemas of responses


@dataclass
class _ValueExpressions:
    """Expressions for one value, and for its parts: those with a name, and the rest."""

    own: int = 0
    parts: dict[str, "_ValueExpressions"] = field(default_factory=dict)
    rest: "_ValueExpressions | None" = None

    def most(self) -> int:
        inner = [*self.parts.values(), *([self.rest] if self.rest else [])]
        return max([self.own, *(one.most() for one in inner)])


class _CannotCount(Exception):
    """Counting takes more than `_MOST_STEPS` steps, or is not supported."""


def count_intersections(schema: JsonValue) -> int | None:
    """The maximum number of expressions that apply to one value; None if they cannot
    be counted."""
    try:
        return _IntersectionCounter(schema.get("$defs", {})).count(schema, 0).most()
    except (_CannotCount, AttributeError, TypeError):  # or a malformed schema: it is not compiled
        return None


class _IntersectionCounter:
    def __init__(self, definitions: JsonValue) -> None:
        self._definitions = definitions
        self._remaining_steps = _MOST_STEPS
        self._open: list[str] = []

    def count(self, schema: JsonValue, depth: int) -> _ValueExpressions:
        """Expressions for a value that `schema` describes."""
        self._step()
        if not isinstance(schema, dict) or depth > _MOST_DEPTH:
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
        rest = [*schema.get("patternProperties", {}).values()]
        rest += [schema[name] for name in ("items", "additionalProperties") if name in schema]
        for part in rest:
            found = self.count(part, depth)
            value.rest = found if value.rest is None else self._both(value.rest, found)

    def _target(self, reference: str, depth: int) -> _ValueExpressions:
        name = str(reference).removeprefix("#/$defs/")
        if name not in self._definitions:
            raise _CannotCount
        if name in self._open:
            return _ValueExpressions()
        self._open.append(name)
        try:
            return self.count(self._definitions[name], depth)
        finally:
            self._open.pop()

    def _both(self, one: _ValueExpressions, other: _ValueExpressions) -> _ValueExpressions:
        return self._join(one, other, one.own + other.own, self._both)

    def _either(self, one: _ValueExpressions, other: _ValueExpressions) -> _ValueExpressions:
        return self._join(one, other, max(one.own, other.own), self._either)

    def _join(
        self, one: _ValueExpressions, other: _ValueExpressions, own: int, join: Any
    ) -> _ValueExpressions:
        self._step()
        if not (other.own or other.parts or other.rest):
            return one
        empty = _ValueExpressions()
        parts = {
            name: join(
                one.parts.get(name, one.rest or empty), other.parts.get(name, other.rest or empty)
            )
            for name in dict.fromkeys([*one.parts, *other.parts])
        }
        rest = join(one.rest or empty, other.rest or empty) if one.rest or other.rest else None
        return _ValueExpressions(own=own, parts=parts, rest=rest)

    def _step(self) -> None:
        self._remaining_steps -= 1
        if self._remaining_steps < 0:
            raise _CannotCount
