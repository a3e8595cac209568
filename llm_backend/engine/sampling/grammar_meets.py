"""The number of expressions of a schema that apply to the same text. Pure.

Expressions meet where schemas are combined: each text of one value must match all of them. The
native code makes one automaton of them, which grows with their product.
"""

from dataclasses import dataclass, field
from typing import Any

from llm_backend.json_types import JsonValue

__all__ = ["meeting"]

_STEPS_MOST = 20_000
_DEPTH_MOST = 40
_NAMES = "\0names"
_OTHERS = {"oneOf", "additionalItems"}  # not supported in schemas of responses


@dataclass
class _Place:
    """Expressions for one place of a value, and for its parts: those with a name, and the rest."""

    own: int = 0
    parts: dict[str, "_Place"] = field(default_factory=dict)
    rest: "_Place | None" = None

    def most(self) -> int:
        inner = [*self.parts.values(), *([self.rest] if self.rest else [])]
        return max([self.own, *(one.most() for one in inner)])


class _TooMuch(Exception):
    """Counting takes more than `_STEPS_MOST` steps, or is not supported."""


def meeting(schema: JsonValue) -> int | None:
    """The maximum number of expressions that apply to one place; None if they cannot
    be counted."""
    try:
        return _Count(schema.get("$defs", {})).place(schema, 0).most()
    except _TooMuch:
        return None


class _Count:
    def __init__(self, definitions: JsonValue) -> None:
        self._definitions = definitions
        self._left = _STEPS_MOST
        self._open: list[str] = []

    def place(self, schema: JsonValue, depth: int) -> _Place:
        """Expressions at the place of a value that `schema` describes."""
        self._step()
        if not isinstance(schema, dict) or depth > _DEPTH_MOST:
            return _Place()
        if _OTHERS & schema.keys() or isinstance(schema.get("items"), list):
            raise _TooMuch
        names = schema.get("patternProperties", {})
        place = _Place(own=("pattern" in schema) + ("format" in schema))
        self._put(place, schema, depth + 1)
        if names:
            place.parts[_NAMES] = _Place(own=len(names))
        for part in schema.get("allOf", ()):
            place = self._both(place, self.place(part, depth))
        if "anyOf" in schema:
            any_of = _Place()
            for part in schema["anyOf"]:
                any_of = self._either(any_of, self.place(part, depth))
            place = self._both(place, any_of)
        if "$ref" in schema:
            place = self._both(place, self._target(schema["$ref"], depth))
        return place

    def _put(self, place: _Place, schema: JsonValue, depth: int) -> None:
        for name, part in schema.get("properties", {}).items():
            place.parts[name] = self.place(part, depth)
        for number, part in enumerate(schema.get("prefixItems", ())):
            place.parts[f"\0{number}"] = self.place(part, depth)
        rest = [*schema.get("patternProperties", {}).values()]
        rest += [schema[name] for name in ("items", "additionalProperties") if name in schema]
        for part in rest:
            found = self.place(part, depth)
            place.rest = found if place.rest is None else self._both(place.rest, found)

    def _target(self, reference: str, depth: int) -> _Place:
        name = str(reference).removeprefix("#/$defs/")
        if name not in self._definitions:
            raise _TooMuch
        if name in self._open:
            return _Place()
        self._open.append(name)
        try:
            return self.place(self._definitions[name], depth)
        finally:
            self._open.pop()

    def _both(self, one: _Place, other: _Place) -> _Place:
        return self._joined(one, other, one.own + other.own, self._both)

    def _either(self, one: _Place, other: _Place) -> _Place:
        return self._joined(one, other, max(one.own, other.own), self._either)

    def _joined(self, one: _Place, other: _Place, own: int, join: Any) -> _Place:
        self._step()
        if not (other.own or other.parts or other.rest):
            return one
        empty = _Place()
        parts = {
            name: join(
                one.parts.get(name, one.rest or empty), other.parts.get(name, other.rest or empty)
            )
            for name in dict.fromkeys([*one.parts, *other.parts])
        }
        rest = join(one.rest or empty, other.rest or empty) if one.rest or other.rest else None
        return _Place(own=own, parts=parts, rest=rest)

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _TooMuch
