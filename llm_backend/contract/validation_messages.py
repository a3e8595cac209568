"""Validation error messages: the first failure of a JSON value, in one sentence with its field.

Compiled validators return only True or False here. Their error reports would hold every branch of
every alternative, and take minutes and gigabytes for a hostile body of 200 KB. So a refused value
is walked once more, by the schema, until the first failure, within a budget of steps. Of a long
chat, only the messages that a validator refuses are walked. If all branches of an `anyOf` or
`oneOf` fail, the reported failure is the deepest one of those branches whose tags (`type`, `role`)
fit. If none fits, the wrong tag is reported, else the missing one.
"""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from llm_backend.json_types import JsonValue

Path: TypeAlias = tuple[str | int, ...]

_STEPS = 4_000
_DEPTH = 40
# A top-level list with a length in this range is filtered by a validator before the walk.
_LONG, _LONGEST = 8, 20_000
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_ARTICLES = {"object": "an object", "array": "an array", "integer": "an integer", "null": "null"}
_BOUNDS: Sequence[tuple[str, str, str, Callable[[float, float], bool]]] = (
    ("minimum", ">=", "below_min", operator.ge),
    ("exclusiveMinimum", ">", "below_min", operator.gt),
    ("maximum", "<=", "above_max", operator.le),
    ("exclusiveMaximum", "<", "above_max", operator.lt),
)


@dataclass(frozen=True, kw_only=True)
class ValidationMessage:
    """One validation failure: path, OpenAI's error code, expected types or values.

    `expected` holds the valid types, or the valid values of an enum; `types` those that are valid
    besides these values. `is_wrong_tag` is true if the value is the tag (`type`, `role`) of another
    branch of an `anyOf` or `oneOf`, `is_missing_tag` if the object has none of the tags, or none of
    the fields, of this branch.
    """

    path: Path
    code: str
    detail: str
    expected: tuple[JsonValue, ...] = ()
    types: tuple[str, ...] = ()
    is_wrong_tag: bool = False
    is_missing_tag: bool = False

    @property
    def field(self) -> str | None:
        """Field name as OpenAI writes it, `messages[1].content`; None for the whole body."""
        return field_name(self.path)

    @property
    def message(self) -> str:
        """Error message for the client."""
        field = f"'{self.field}'" if self.path else "body"
        if self.code == "missing_required_parameter":
            return f"Missing required parameter: {field}."
        if self.code == "unknown_parameter":
            return f"Unknown parameter: {field}."
        if self.code == "invalid_type":
            types = _either(_with_articles(self.expected))
            return f"Invalid type for {field}: expected {types}, but got {self.detail} instead."
        if self.expected:
            values = _either([*map(abbreviate, self.expected), *_with_articles(self.types)])
            return f"Invalid value for {field}: {self.detail}. Supported: {values}."
        return f"Invalid {field}: {self.detail}."


def find_failure(
    value: JsonValue,
    schema: JsonValue,
    component: Callable[[str], JsonValue],
    validator: Callable[[JsonValue], Callable[[JsonValue], bool]],
) -> ValidationMessage:
    """Finds the first failure of a value that a validator of this schema has refused.

    `component` resolves a `$ref`, given as it is written in the schema; `validator` returns a
    predicate for a part of the schema.
    """
    found = _Walk(component, validator).failure(schema, value, ())
    return found or ValidationMessage(
        path=(), code="invalid_value", detail="it does not match the schema of this API"
    )


def field_name(path: Path) -> str | None:
    """Formats `("messages", 1, "content")` as `messages[1].content`; truncates long names."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:64]}" for part in path)
    return name.removeprefix(".")[:256] or None


def abbreviate(value: JsonValue) -> str:
    """Formats a value for a message, truncated to 64 characters."""
    literals = {None: "null", True: "true", False: "false"}
    is_literal = value is None or isinstance(value, bool)
    text = literals[value] if is_literal else f"'{value}'" if isinstance(value, str) else f"{value}"
    return text if len(text) <= 64 else f"{text[:60]}...{text[0] if text[0] == chr(39) else ''}"


class _Walk:
    """One walk over a value; returns no failure once its budget of steps is used up."""

    def __init__(
        self,
        component: Callable[[str], JsonValue],
        validator: Callable[[JsonValue], Callable[[JsonValue], bool]],
    ) -> None:
        self._component = component
        self._validator = validator
        self._components: dict[str, JsonValue] = {}
        self._steps = _STEPS

    def failure(self, schema: JsonValue, value: JsonValue, path: Path) -> ValidationMessage | None:
        self._steps -= 1
        if self._steps < 0 or len(path) > _DEPTH or schema is True:
            return None
        if "$ref" in schema and (found := self.failure(self._resolve(schema["$ref"]), value, path)):
            return found
        if "type" in schema and (found := _type_failure(schema["type"], value, path)):
            return found
        for check in (_value_failures, self._inner_failures):
            for found in check(schema, value, path):
                return found
        return None

    def _resolve(self, reference: str) -> JsonValue:
        if reference not in self._components:
            self._components[reference] = self._component(reference)
        return self._components[reference]

    def _inner_failures(
        self, schema: JsonValue, value: JsonValue, path: Path
    ) -> Iterator[ValidationMessage]:
        if isinstance(value, dict):
            yield from self._object_failures(schema, value, path)
        elif isinstance(value, list) and "items" in schema:
            for position, item in self._items_to_check(schema["items"], value, path):
                if found := self.failure(schema["items"], item, (*path, position)):
                    yield found
        for part in schema.get("allOf", ()):
            if found := self.failure(part, value, path):
                yield found
        for key in ("anyOf", "oneOf"):
            if key in schema and (found := self._alternatives(schema[key], value, path)):
                yield found
        if "not" in schema and not self.failure(schema["not"], value, path):
            yield ValidationMessage(
                path=path, code="invalid_value", detail="this combination is excluded"
            )

    def _items_to_check(
        self, schema: JsonValue, values: list[JsonValue], path: Path
    ) -> Iterator[tuple[int, JsonValue]]:
        """Returns the items to walk: all, or of a long top-level list only the invalid ones."""
        if len(path) != 1 or not _LONG < len(values) <= _LONGEST:
            return enumerate(values)
        is_valid = self._validator(schema)
        return ((index, value) for index, value in enumerate(values) if not is_valid(value))

    def _object_failures(
        self, schema: JsonValue, value: Mapping[str, JsonValue], path: Path
    ) -> Iterator[ValidationMessage]:
        properties = schema.get("properties", {})
        present = [name for name in properties if name in value]
        tags = [name for name in properties if _is_tag(name, self._values(properties[name]))]
        tags.sort(key=lambda name: name != "type")  # a `role` is that of an object of this type
        for name in tags:
            if name in value and (
                found := self.failure(properties[name], value[name], (*path, name))
            ):
                yield found
        missing = [name for name in schema.get("required", ()) if name not in value]
        has_tag = any(name in value for name in tags)
        for name in sorted(missing, key=lambda name: name not in tags):
            yield ValidationMessage(
                path=(*path, name),
                code="missing_required_parameter",
                detail="",
                is_missing_tag=not present or (name in tags and not has_tag),
            )
        for name in present:
            if found := self.failure(properties[name], value[name], (*path, name)):
                yield found
        yield from self._other_failures(schema, value, path)

    def _other_failures(
        self, schema: JsonValue, value: Mapping[str, JsonValue], path: Path
    ) -> Iterator[ValidationMessage]:
        """Yields failures of fields outside of `properties`, and of their names."""
        others = schema.get("additionalProperties", True)
        for name in [name for name in value if name not in schema.get("properties", {})]:
            where = (*path, name)
            if others is False:
                yield ValidationMessage(path=where, code="unknown_parameter", detail="")
            elif found := self.failure(others, value[name], where):
                yield found
            if found := self.failure(schema.get("propertyNames", True), name, where):
                yield found

    def _values(self, schema: JsonValue) -> Sequence[JsonValue]:
        """Returns the values of a schema with `enum` or `const`, through references and `null`."""
        while isinstance(schema, dict) and "$ref" in schema:
            schema = self._resolve(schema["$ref"])
        if not isinstance(schema, dict):
            return ()
        branches = schema.get("anyOf") or schema.get("oneOf") or ()
        if {"type": "null"} in branches and len(branches) == 2:
            return self._values(next(one for one in branches if one != {"type": "null"}))
        return [schema["const"]] if "const" in schema else schema.get("enum", ())

    def _alternatives(
        self, branches: Sequence[JsonValue], value: JsonValue, path: Path
    ) -> ValidationMessage | None:
        found: list[ValidationMessage] = []
        for branch in branches:
            failure = self.failure(branch, value, path)
            if failure is None:
                return None
            found.append(failure)
        intended = [one for one in found if not _is_for_other_branch(one, path)]
        if intended:
            return max(intended, key=lambda one: len(one.path))
        wrong = [one for one in found if one.is_wrong_tag]
        of_type = [one for one in wrong if one.path[-1:] != ("type",)]
        mistyped = [one for one in found if one.code == "invalid_type"]
        missing = [one for one in found if one.is_missing_tag]
        same = of_type or wrong or missing[:1] or mistyped
        first = same[0]
        types = [name for one in mistyped for name in one.expected if name != "null"]
        return replace(
            first,
            expected=tuple(dict.fromkeys(name for one in same for name in one.expected)),
            types=tuple(types) if first.is_wrong_tag and first.path == path else first.types,
            is_wrong_tag=first.is_wrong_tag and not (types and first.path == path),
        )


def _is_tag(name: str | int | None, values: Sequence[JsonValue]) -> bool:
    """True if these values of a field identify a branch of an `anyOf` or `oneOf`."""
    return len(values) == 1 or (name in ("type", "role") and len(values) > 0)


def _is_for_other_branch(failure: ValidationMessage, path: Path) -> bool:
    """True if the failure shows that the value was meant for another branch."""
    depth = len(failure.path) - len(path)
    has_other_tag = failure.is_wrong_tag or failure.is_missing_tag
    return (has_other_tag and depth <= 1) or (failure.code == "invalid_type" and depth == 0)


def _type_failure(types: str | list[str], value: JsonValue, path: Path) -> ValidationMessage | None:
    names = [types] if isinstance(types, str) else types
    if any(_is_type(name, value) for name in names):
        return None
    got = _kind(value) if value not in ("", [], {}) else f"an empty {_kind(value).split()[-1]}"
    return ValidationMessage(path=path, code="invalid_type", detail=got, expected=tuple(names))


def _is_type(name: str, value: JsonValue) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _kind(value: JsonValue) -> str:
    for name in ("boolean", "null", "integer", "number", "string", "array", "object"):
        if _is_type(name, value):
            return _ARTICLES.get(name, f"a {name}")
    raise AssertionError("a JSON value is of one of these types")


def _value_failures(schema: JsonValue, value: JsonValue, path: Path) -> Iterator[ValidationMessage]:
    """Yields failures of the value itself: enum, size, bounds, pattern."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None and not any(_is_same(value, one) for one in values):
        yield ValidationMessage(
            path=path,
            code="invalid_value",
            detail=f"{abbreviate(value)} is not supported",
            expected=tuple(values),
            is_wrong_tag=_is_tag(path[-1] if path else None, values),
        )
    if isinstance(value, str | list | dict):
        yield from _size_failures(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _bound_failures(schema, value, path)
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        detail = f"it does not match the pattern {schema['pattern']}"
        yield ValidationMessage(path=path, code="invalid_value", detail=detail)


def _is_same(value: JsonValue, other: JsonValue) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _size_failures(
    schema: JsonValue, value: str | list[JsonValue] | dict[str, JsonValue], path: Path
) -> Iterator[ValidationMessage]:
    kind, unit, low, high = {
        str: ("string", "characters", "minLength", "maxLength"),
        list: ("array", "items", "minItems", "maxItems"),
        dict: ("object", "properties", "minProperties", "maxProperties"),
    }[type(value)]
    size = len(value)
    if size < schema.get(low, 0):
        code = f"empty_{kind}" if size == 0 else f"{kind}_below_min_length"
        detail = f"{kind} too short, expected at least {schema[low]} {unit}, but got {size}"
        yield ValidationMessage(path=path, code=code, detail=detail)
    if size > schema.get(high, size):
        code = f"{kind}_above_max_{'properties' if kind == 'object' else 'length'}"
        detail = f"{kind} too long, expected at most {schema[high]} {unit}, but got {size}"
        yield ValidationMessage(path=path, code=code, detail=detail)


def _bound_failures(schema: JsonValue, value: float, path: Path) -> Iterator[ValidationMessage]:
    kind = "integer" if isinstance(value, int) else "decimal"
    for keyword, symbol, side, is_within in _BOUNDS:
        if keyword in schema and not is_within(value, schema[keyword]):
            detail = f"expected a value {symbol} {schema[keyword]}, but got {abbreviate(value)}"
            yield ValidationMessage(path=path, code=f"{kind}_{side}_value", detail=detail)


def _with_articles(types: Iterable[JsonValue]) -> list[str]:
    return [_ARTICLES.get(name, f"a {name}") for name in types]


def _either(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))[:50]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
