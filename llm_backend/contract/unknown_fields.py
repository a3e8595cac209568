"""Finds the fields of a request body that the document does not know, at any depth (pure).

`allOf`, `anyOf` and `oneOf` are merged: a field is known if any branch describes it. If a branch
accepts any field, all are known. The known fields of a path are computed on first use.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.validation_messages import Path, field_name
from llm_backend.json_types import JsonValue

_BRANCHES = ("allOf", "anyOf", "oneOf")
_DESCRIBING = frozenset({"properties", "items", "additionalProperties"})
_MAX_FIELDS = 16


class KnownFields:
    """Known fields at one path of a body, merged from all schemas that may apply there."""

    def __init__(self, schemas: Iterable[JsonValue], component: Callable[[str], JsonValue]) -> None:
        self._component = component
        self._properties: dict[str, list[JsonValue]] = {}
        self._items: list[JsonValue] = []
        self._others: list[JsonValue] = []
        self._children: dict[str | None, KnownFields] = {}
        self.accepts_any = False
        for schema in schemas:
            for part in self._parts(schema, frozenset()):
                self._add(part)

    def field(self, name: str) -> "KnownFields | None":
        """Returns the known fields within a field; None if the field itself is unknown."""
        child = self._children.get(name)
        if child is not None or not (name in self._properties or self.accepts_any):
            return child
        return self._child(name, self._properties.get(name, self._others))

    def item(self) -> "KnownFields":
        """Returns the known fields of an array's items."""
        return self._child(None, self._items)

    def _child(self, name: str | None, schemas: list[JsonValue]) -> "KnownFields":
        if name not in self._properties and name is not None:
            name = ""  # one child for all other fields: clients may send any number of names
        if name not in self._children:
            self._children[name] = KnownFields(schemas or [True], self._component)
        return self._children[name]

    def _parts(self, schema: JsonValue, seen: frozenset[str]) -> Iterator[JsonValue]:
        """Yields the schema and every schema that it is composed of."""
        if not isinstance(schema, dict):
            yield schema
            return
        if "$ref" in schema:
            name = schema["$ref"].removeprefix(SCHEMAS_PREFIX)
            if name not in seen:
                yield from self._parts(self._component(name), seen | {name})
        composed = [branch for key in _BRANCHES for branch in schema.get(key, ())]
        for branch in composed:
            yield from self._parts(branch, seen)
        is_plain = "$ref" not in schema and not composed
        if is_plain or _DESCRIBING & set(schema):
            yield schema

    def _add(self, schema: JsonValue) -> None:
        if not isinstance(schema, Mapping):
            self.accepts_any = self.accepts_any or schema is True
            return
        for name, inner in schema.get("properties", {}).items():
            self._properties.setdefault(name, []).append(inner)
        if "items" in schema:
            self._items.append(schema["items"])
        others = schema.get("additionalProperties")
        if others is not None and others is not False:
            self.accepts_any = True
            self._others.append(others)
        self.accepts_any = self.accepts_any or _is_free(schema)


def unknown_fields(value: JsonValue, known: KnownFields) -> list[str]:
    """Returns the unknown fields of a body, outermost first, at most `_MAX_FIELDS`."""
    found: list[str] = []
    level: list[tuple[Path, JsonValue, KnownFields]] = [((), value, known)]
    while level and len(found) < _MAX_FIELDS:
        inner: list[tuple[Path, JsonValue, KnownFields]] = []
        for path, one, fields in level:
            if isinstance(one, list):
                item = fields.item()
                inner += [((*path, number), each, item) for number, each in enumerate(one)
                          if isinstance(each, dict | list)]  # fmt: skip
                continue
            for name, each in one.items():
                field = fields.field(name)
                if field is None:
                    found.append(field_name((*path, name)) or name)
                elif isinstance(each, dict | list):
                    inner.append(((*path, name), each, field))
        level = inner
    return found[:_MAX_FIELDS]


def _is_free(schema: Mapping[str, JsonValue]) -> bool:
    """True if a schema accepts objects without describing their fields."""
    kind = schema.get("type", "object")
    takes_objects = kind == "object" or "object" in kind
    return takes_objects and not (_DESCRIBING | {"enum", "const"}) & schema.keys()
