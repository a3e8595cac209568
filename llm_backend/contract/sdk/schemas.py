"""Types of the SDK as JSON Schema: `TypedDict`, pydantic models, unions, literals, arrays.

A class that its package exports becomes a component; other classes of its module are inlined,
because their names are clear only there. In pydantic models `Optional` with the default None means
*nullable or not sent*, so the schema allows both.
"""

import json
import types
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import IO, Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typing_extensions import get_type_hints, is_typeddict

from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.json_types import JsonValue

_SCALARS: Mapping[Any, Mapping[str, JsonValue]] = {
    str: {"type": "string"}, bool: {"type": "boolean"}, int: {"type": "integer"},
    float: {"type": "number"}, type(None): {"type": "null"}, object: {}, Any: {},
    datetime: {"type": "string", "format": "date-time"}, date: {"type": "string", "format": "date"},
}  # fmt: skip
_BINARY = {"type": "string", "format": "binary"}
_ARRAYS = (list, Iterable, Sequence)
_WRAPPERS = (Required, NotRequired)


class SdkSchemas:
    """Converts types to schemas; `components` has those that others refer to, by name.

    `shared` has the names of existing components, by their schemas as sorted JSON.
    """

    def __init__(self, shared: Mapping[str, str] | None = None) -> None:
        self.components: dict[str, JsonValue] = {}
        self._shared = shared or {}
        self._names: dict[Any, str] = {}
        self._open: list[type] = []

    def schema_of(self, kind: Any) -> dict[str, JsonValue]:
        """Returns the schema of a type."""
        origin: Any = get_origin(kind)
        arguments = get_args(kind)
        if kind in _SCALARS:
            return dict(_SCALARS[kind])
        if origin is Annotated or origin in _WRAPPERS:
            return self._schema_of_annotated(arguments[0], arguments[1:])
        if origin in {Union, types.UnionType}:
            return self._union(arguments)
        if origin is Literal:
            return {"type": _type_of(arguments[0]), "enum": sorted(arguments, key=str)}
        if is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return self._object_type(kind)
        if origin in {dict, Mapping} or (origin and issubclass(origin, Mapping)):
            return {"type": "object", "additionalProperties": self.schema_of(arguments[1])}
        if (origin is not None and issubclass(origin, _ARRAYS)) or _is_sequence(origin):
            return {"type": "array", "items": self.schema_of(arguments[0])}
        if kind is dict:
            return {"type": "object"}
        if kind is bytes:
            return dict(_BINARY)
        raise TypeError(f"The SDK's type {kind!r} has no JSON Schema here.")

    def fields_of(self, kind: Any) -> dict[str, tuple[str, Any, bool]]:
        """Returns the fields of an object type, by Python name: name sent, type, is required.

        `__required_keys__` would miss annotations that are strings.
        """
        if is_typeddict(kind):
            hints = get_type_hints(kind, include_extras=True)
            return {
                name: (_alias(hint) or name, hint, _is_required(hint))
                for name, hint in hints.items()
            }
        return {
            name: (field.alias or name, Annotated[(field.annotation, *field.metadata)]
                   if field.metadata else field.annotation, field.default is PydanticUndefined)
            for name, field in kind.model_fields.items()
        }  # fmt: skip

    def object_of(self, kind: Any, leave_out: Iterable[str] = ()) -> dict[str, JsonValue]:
        """Returns the schema of a `TypedDict` or model in place, without some of its fields."""
        left_out = set(leave_out)
        properties, required = {}, []
        for name, (sent, hint, is_required) in self.fields_of(kind).items():
            if name in left_out:
                continue
            properties[sent] = self.schema_of(hint)
            if is_required:
                required.append(sent)
        schema: dict[str, JsonValue] = {"type": "object", "properties": properties}
        if required:
            schema["required"] = sorted(required)
        return schema

    def body_of(self, kind: Any, leave_out: Iterable[str]) -> dict[str, JsonValue]:
        """Returns the schema of a request's body, without the fields `leave_out`.

        Union members that differ only by `stream` become one.
        """
        if kind is None:
            return {"type": "object"}
        if get_origin(kind) is not Union:
            return self.object_of(kind, leave_out)
        members = [self.body_of(each, leave_out) for each in get_args(kind)]
        without = [{**one, "properties": _without(one["properties"], "stream"),
                    "required": [name for name in one.get("required", ()) if name != "stream"]}
                   for one in members]  # fmt: skip
        if any(one != without[0] for one in without):
            return _simplify(members)
        whole = without[0]
        whole["properties"]["stream"] = {"type": ["boolean", "null"]}
        return whole

    def _schema_of_annotated(self, kind: Any, notes: Iterable[Any]) -> dict[str, JsonValue]:
        schema = self.schema_of(kind)
        for note in notes:
            if getattr(note, "format", None) == "base64":
                return {"type": "string", "format": "byte"}
        return schema

    def _union(self, members: Sequence[Any]) -> dict[str, JsonValue]:
        if any(get_origin(one) is IO or one is bytes for one in members):
            return dict(_BINARY)
        branches: list[dict[str, JsonValue]] = []
        for member in members:
            schema = self.schema_of(member)
            for branch in schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]:
                if branch not in branches:
                    branches.append(branch)
        if {} in branches:
            return {}
        return _simplify(branches)

    def _object_type(self, kind: Any) -> dict[str, JsonValue]:
        if kind in self._names:
            return {"$ref": SCHEMAS_PREFIX + self._names[kind]}
        if kind in self._open or _is_public(kind):
            return self._component(kind)
        self._open.append(kind)
        schema = self.object_of(kind)
        self._open.pop()
        return {"$ref": SCHEMAS_PREFIX + self._names[kind]} if kind in self._names else schema

    def _component(self, kind: Any) -> dict[str, JsonValue]:
        name = self._free_name(kind)
        self._names[kind] = name
        self.components[name] = {}
        schema = self.object_of(kind)
        if shared := self._shared.get(json.dumps(schema, sort_keys=True)):
            del self.components[name]
            self._names[kind] = shared
            return {"$ref": SCHEMAS_PREFIX + shared}
        self.components[name] = schema
        return {"$ref": SCHEMAS_PREFIX + name}

    def _free_name(self, kind: Any) -> str:
        """Returns a name that is not taken; models of one name differ by their packages."""
        name = kind.__name__.partition("[")[0]
        packages = kind.__module__.split(".")[1:-1]
        while name in self.components:
            name = f"{packages.pop().replace('_', ' ').title().replace(' ', '')}{name}"
        return str(name)


def _without(fields: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    return {key: value for key, value in fields.items() if key != name}


def _is_public(kind: Any) -> bool:
    """True for the class that a module is named after, which its package exports."""
    module = kind.__module__.rpartition(".")[2].replace("_", "")
    return bool(module == kind.__name__.lower())


def _is_sequence(origin: Any) -> bool:
    return getattr(origin, "__name__", "") == "SequenceNotStr"


def _alias(hint: Any) -> str | None:
    """Returns the name under which a field is sent, if it is not Python's."""
    while get_origin(hint) in _WRAPPERS:
        hint = get_args(hint)[0]
    for note in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if alias := getattr(note, "alias", None):
            return str(alias)
    return None


def _is_required(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is Required


def _type_of(value: object) -> JsonValue:
    return _SCALARS[type(value)]["type"]


def _simplify(branches: list[dict[str, JsonValue]]) -> dict[str, JsonValue]:
    """Returns a union in its shortest form: enumerations joined, `null` among types and values."""
    values = [one for one in branches if one.keys() == {"type", "enum"}]
    if len(values) > 1 and len({one["type"] for one in values}) == 1:
        joined = sorted({value for one in values for value in one["enum"]}, key=str)
        branches = [one for one in branches if one not in values]
        branches.append({"type": values[0]["type"], "enum": joined})
    null = {"type": "null"}
    if null in branches and len(branches) == 2:
        (other,) = [one for one in branches if one != null]
        if isinstance(other.get("type"), str):
            nullable = {**other, "type": [other["type"], "null"]}
            if "enum" in other:
                nullable["enum"] = [*other["enum"], None]
            return nullable
    if len(branches) == 1:
        return branches[0]
    return {"anyOf": sorted(branches, key=lambda one: json.dumps(one, sort_keys=True))}
