"""Differences of two schemas, except of order, of names of components and of `allOf` nesting.

References are followed, so that naming or renaming a schema is not a difference. A reference to one
name on both sides is not followed: that component is compared on its own.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.release.change import ChangeKind
from llm_backend.json_types import JsonMapping, JsonObject, JsonValue

Schema = JsonMapping

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LIMITS = ("pattern", "multipleOf", "uniqueItems", "not")
_CHILDREN = ("items", "additionalProperties", "propertyNames", "contains")
_JSON_TYPES = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array",
    dict: "object", type(None): "null",
}  # fmt: skip
_HANDLED = frozenset(
    {*_LOWER, *_UPPER, *_LIMITS, *_CHILDREN, "type", "enum", "const", "properties", "required"}
    | {"anyOf", "oneOf", "allOf", "$ref", "nullable", "discriminator"}
)


class Difference(NamedTuple):
    """One difference at `path` within two schemas."""

    kind: ChangeKind
    path: str
    old: JsonValue = None
    new: JsonValue = None


class SchemaComparison:
    """Compares schemas of two documents, whose components are given by name."""

    def __init__(self, old: Mapping[str, Schema], new: Mapping[str, Schema]) -> None:
        self._old, self._new = old, new
        self._compared: set[tuple[str, str]] = set()

    def compare(self, old: Schema | bool, new: Schema | bool) -> list[Difference]:
        """Returns the differences of two schemas."""
        self._compared.clear()
        found = {repr(each): each for each in self._differences(old, new, "")}
        return list(found.values())

    def _differences(
        self, old: Schema | bool, new: Schema | bool, path: str
    ) -> Iterator[Difference]:
        if old is new:
            return
        if (old is False) != (new is False):
            kind = ChangeKind.BOUND_LOOSENED if old is False else ChangeKind.BOUND_TIGHTENED
            yield Difference(kind, path, old is not False, new is not False)
            return
        old, new = _as_schema(old), _as_schema(new)
        pair = (_text(old), _text(new))
        if pair[0] == pair[1] or pair in self._compared:  # the same, or a recursive schema
            return
        self._compared.add(pair)
        if _keyword(old) != _keyword(new) and _unions_of(old) and _unions_of(new):
            yield Difference(ChangeKind.UNION_REWRITTEN, path, _keyword(old), _keyword(new))
        before, after = _drop_matches(_alternatives(old), _alternatives(new))
        before = [each for one in before for each in self._branches(one, self._old)]
        after = [each for one in after for each in self._branches(one, self._new)]
        before, after = _drop_matches(before, after)
        for one, other in self._pairs(before, after):
            yield from self._one_branch(one, other, path)
        for one in before:
            yield Difference(ChangeKind.BRANCH_REMOVED, path, _name(one))
        for one in after:
            yield Difference(ChangeKind.BRANCH_ADDED, path, new=_name(one))
        if _unions_of(old) or _unions_of(new):
            yield from _keywords(old, new, path)

    def _branches(self, schema: Schema, components: Mapping[str, Schema]) -> list[Schema]:
        """Returns a schema that is not a union, or its alternatives if it refers to a union."""
        flat = _flatten(schema, components)
        alternatives = _alternatives(flat)
        if len(alternatives) == 1:
            return [schema]
        return [each for one in alternatives for each in self._branches(one, components)]

    def _pairs(self, before: list[Schema], after: list[Schema]) -> Iterator[tuple[Schema, Schema]]:
        """Takes pairs of corresponding branches out of both lists: first those of the same tag,
        then those of the same type."""
        tags: tuple[Callable[[Schema, Mapping[str, Schema]], JsonValue], ...] = (_tag, _type)
        for tag in tags:
            for one in list(before):
                key = tag(one, self._old)
                same = [other for other in after if tag(other, self._new) == key]
                if key is not None and len(same) == 1:
                    before.remove(one)
                    after.remove(same[0])
                    yield one, same[0]
        if len(before) == len(after) == 1 and "any" in {
            _type(before[0], self._old), _type(after[0], self._new),
        }:  # fmt: skip
            yield before.pop(), after.pop()

    def _one_branch(self, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        if old.get("$ref") is not None and old.get("$ref") == new.get("$ref"):
            return
        before, after = _flatten(old, self._old), _flatten(new, self._new)
        yield from _keywords(before, after, path)
        yield from _values(before, after, path)
        yield from _bounds(before, after, path)
        yield from self._properties(before, after, path)
        for key in _CHILDREN:
            if key in before or key in after:
                child = f"{path}[]" if key == "items" else f"{path}.{key}".lstrip(".")
                yield from self._differences(before.get(key, True), after.get(key, True), child)

    def _properties(self, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(before.keys() | after.keys()):
            child = f"{path}.{name}".lstrip(".")
            if name not in after:
                yield Difference(ChangeKind.FIELD_REMOVED, child)
                continue
            if name not in before:
                yield Difference(ChangeKind.FIELD_ADDED, child)
            else:
                yield from self._differences(before[name], after[name], child)
            if name in required[1] - required[0]:
                yield Difference(ChangeKind.FIELD_REQUIRED, child)
            if name in required[0] - required[1]:
                yield Difference(ChangeKind.FIELD_OPTIONAL, child)


def _as_schema(schema: Schema | bool) -> Schema:
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    return schema


def _alternatives(schema: Schema) -> list[Schema]:
    """Splits a union or a list of types into branches; properties beside a union hold in each."""
    unions, branches = _unions_of(schema), list[Schema]()
    if unions:
        beside = {key: schema[key] for key in ("properties", "required") if key in schema}
        for branch in map(_as_schema, unions):
            branches += _alternatives({"allOf": [beside, branch]} if beside else branch)
    elif isinstance(schema.get("type"), list):
        branches += [_of_type(schema, kind) for kind in schema["type"]]
    else:
        branches.append({key: value for key, value in schema.items() if key != "nullable"})
    if schema.get("nullable"):
        branches.append({"type": "null"})
    return branches


def _drop_matches(before: list[Schema], after: list[Schema]) -> tuple[list[Schema], list[Schema]]:
    both = {_text(one) for one in before} & {_text(one) for one in after}
    return (
        [one for one in before if _text(one) not in both],
        [one for one in after if _text(one) not in both],
    )


def _text(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True)


def _unions_of(schema: Schema) -> list[Any]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def _keyword(schema: Schema) -> str:
    return "+".join(key for key in ("anyOf", "oneOf") if key in schema)


def _of_type(schema: Schema, kind: str) -> Schema:
    """Returns the schema for one of its types, without null in its enumeration."""
    rest = {key: value for key, value in schema.items() if key not in ("nullable", "default")}
    if kind == "null":
        return {"type": "null"}
    if "enum" in rest:
        rest["enum"] = [value for value in rest["enum"] if value is not None]
    return {**rest, "type": kind}


def _flatten(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    """Returns a schema with its reference followed and its `allOf` parts merged."""
    followed: set[str] = set()
    while "$ref" in schema and schema["$ref"] not in followed:
        followed.add(schema["$ref"])
        schema = components.get(schema["$ref"].removeprefix(SCHEMAS_PREFIX), {})
    parts = [_flatten(_as_schema(part), components) for part in schema.get("allOf", ())]
    if not parts:
        return schema
    merged: JsonObject = {}
    for part in [*parts, {key: value for key, value in schema.items() if key != "allOf"}]:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", ()), *part.get("required", ())]
        merged |= part
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = sorted(set(required))
    return merged


def _tag(schema: Schema, components: Mapping[str, Schema]) -> JsonValue:
    """Returns the constants that distinguish a branch of a union from the others; None if
    there are none."""
    properties = _flatten(schema, components).get("properties", {})
    tags = {}
    for name in ("type", "object", "role", "event"):
        values = properties.get(name, {})
        constants = [values["const"]] if "const" in values else values.get("enum", ())
        if len(constants) == 1:
            tags[name] = constants[0]
    return json.dumps(tags, sort_keys=True) if tags else None


def _type(schema: Schema, components: Mapping[str, Schema]) -> JsonValue:
    flat = _flatten(schema, components)
    return _own_type(flat) or ("object" if "properties" in flat else "any")


def _own_type(schema: Schema) -> JsonValue:
    """Returns a schema's `type`; if it is missing, the type that all its values have, or None."""
    kinds = {_JSON_TYPES[type(value)] for value in (_enumeration(schema) or {}).values()}
    return schema.get("type", kinds.pop() if len(kinds) == 1 else None)


def _name(schema: Schema) -> JsonValue:
    """Returns a short name of a branch."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(SCHEMAS_PREFIX)
    if "const" in schema or "enum" in schema:
        return _text(schema.get("const", schema.get("enum")))
    return schema.get("type", "any")


def _values(old: Schema, new: Schema, path: str) -> Iterator[Difference]:
    """Yields differences of types and enumerations."""
    types = _own_type(old), _own_type(new)
    if types[0] != types[1]:
        yield Difference(_bound_kind("type", *types), f"{path} (type)", *types)
    before, after = _enumeration(old), _enumeration(new)
    if before is None or after is None:
        if before is not None:
            yield Difference(ChangeKind.BOUND_LOOSENED, f"{path} (enum)", list(before.values()))
        if after is not None:
            yield Difference(ChangeKind.BOUND_TIGHTENED, f"{path} (enum)", new=list(after.values()))
        return
    if removed := [before[key] for key in sorted(before.keys() - after.keys())]:
        yield Difference(ChangeKind.VALUES_REMOVED, path, removed)
    if added := [after[key] for key in sorted(after.keys() - before.keys())]:
        yield Difference(ChangeKind.VALUES_ADDED, path, new=added)


def _enumeration(schema: Schema) -> dict[str, JsonValue] | None:
    if "const" in schema:
        return {json.dumps(schema["const"]): schema["const"]}
    if "enum" in schema:
        return {json.dumps(value): value for value in schema["enum"]}
    return None


def _bounds(old: Schema, new: Schema, path: str) -> Iterator[Difference]:
    for key in (*_LOWER, *_UPPER, *_LIMITS):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield Difference(_bound_kind(key, before, after), f"{path} ({key})", before, after)


def _bound_kind(key: str, old: JsonValue, new: JsonValue) -> ChangeKind:
    if old is None or new is None:
        is_tighter = old is None
    elif isinstance(old, int | float) and isinstance(new, int | float):
        is_tighter = (new > old) == (key in _LOWER)
    else:
        return ChangeKind.KEYWORD_CHANGED  # a pattern, or a bound that is not a number
    return ChangeKind.BOUND_TIGHTENED if is_tighter else ChangeKind.BOUND_LOOSENED


def _keywords(old: Schema, new: Schema, path: str) -> Iterator[Difference]:
    """Yields differences of the keywords that only annotate, or whose effect is not known."""
    for key in sorted((old.keys() | new.keys()) - _HANDLED):
        if old.get(key) != new.get(key):
            location = f"{path} ({key})"
            yield Difference(ChangeKind.KEYWORD_CHANGED, location, old.get(key), new.get(key))
