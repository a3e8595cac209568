"""Finds the fields of a request body that the document does not know, at any depth (pure).

`allOf`, `anyOf` and `oneOf` are merged: a field is known if any branch knows it. If a branch
accepts any field, all are known. The known fields of a place are computed on first use.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from llm_backend.contract.validation_messages import Path, field_name
from llm_backend.json_types import JsonValue

__all__ = ["KnownFields", "unknown_fields"]


_PREFIX = "#/components/schemas/"
_BRANCHES = ("allOf", "anyOf", "oneOf")
_SAYING = frozenset({"properties", "items", "additionalProperties"})
_FIELDS_TOLD = 16


class KnownFields:
    """Known fields of one place in a body, merged from all schemas that may apply there."""

    def __init__(self, schemas: Iterable[JsonValue], component: Callable[[str], JsonValue]) -> None:
        self._component = component
        self._properties: dict[str, list[JsonValue]] = {}
        self._items: list[JsonValue] = []
        self._others: list[JsonValue] = []
        self._places: dict[str | None, KnownFields] = {}
        self.takes_any = False
        for schema in schemas:
            for part in self._parts(schema, frozenset()):
                self._add(part)

    def field(self, name: str) -> "KnownFields | None":
        """Returns the place of a field's value; None if the field is unknown."""
        place = self._places.get(name)
        if place is not None or not (name in self._properties or self.takes_any):
            return place
        return self._place(name, self._properties.get(name, self._others))

    def item(self) -> "KnownFields":
        """Returns the place of an array's items."""
        return self._place(None, self._items)

    def _place(self, name: str | None, schemas: list[JsonValue]) -> "KnownFields":
        if name not in self._properties and name is not None:
            name = ""  # one place for all other fields, as clients choose any number of names
        if name not in self._places:
            self._places[name] = KnownFields(schemas or [True], self._component)
        return self._places[name]

    def _parts(self, schema: JsonValue, seen: frozenset[str]) -> Iterator[JsonValue]:
        """Yields the schema and every schema that it is composed of."""
        if not isinstance(schema, dict):
            yield schema
            return
        if "$ref" in schema:
            name = schema["$ref"].removeprefix(_PREFIX)
            if name not in seen:
                yield from self._parts(self._component(name), seen | {name})
        composed = [branch for key in _BRANCHES for branch in schema.get(key, ())]
        for branch in composed:
            yield from self._parts(branch, seen)
        is_plain = "$ref" not in schema and not composed
        if is_plain or _SAYING & set(schema):
            yield schema

    def _add(self, schema: JsonValue) -> None:
        if not isinstance(schema, Mapping):
            self.takes_any = self.takes_any or schema is True
            return
        for name, inner in schema.get("properties", {}).items():
            self._properties.setdefault(name, []).append(inner)
        if "items" in schema:
            self._items.append(schema["items"])
        others = schema.get("additionalProperties")
        if others is not None and others is not False:
            self.takes_any = True
            self._others.append(others)
        self.takes_any = self.takes_any or _is_free(schema)


def unknown_fields(value: JsonValue, known: KnownFields) -> list[str]:
    """Returns the unknown fields of a body, outermost first, at most sixteen."""
    found: list[str] = []
    level: list[tuple[Path, JsonValue, KnownFields]] = [((), value, known)]
    while level and len(found) < _FIELDS_TOLD:
        inner: list[tuple[Path, JsonValue, KnownFields]] = []
        for path, one, place in level:
            if isinstance(one, list):
                item = place.item()
                inner += [((*path, number), each, item) for number, each in enumerate(one)
                          if isinstance(each, dict | list)]  # fmt: skip
                continue
            for name, each in one.items():
                field = place.field(name)
                if field is None:
                    found.append(field_name((*path, name)) or name)
                elif isinstance(each, dict | list):
                    inner.append(((*path, name), each, field))
        level = inner
    return found[:_FIELDS_TOLD]


def _is_free(schema: Mapping[str, JsonValue]) -> bool:
    """True if a schema accepts objects without describing their fields."""
    kind = schema.get("type", "object")
    takes_objects = kind == "object" or "object" in kind
    says_nothing = not {"properties", "additionalProperties", "items", "enum", "const"} & set(
        schema
    )
    return takes_objects and says_nothing
