"""Validation of a finished answer against the client's JSON schema."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any

from jsonschema_rs import FancyRegexOptions, ReferencingError, ValidationError, validator_for

from llm_backend.backends.schemas.formats import lower_escapes
from llm_backend.backends.schemas.keywords import Path, SchemaUnsupported
from llm_backend.backends.schemas.references import (
    References,
    find_unresolved,
    without_unused,
)
from llm_backend.json_types import JsonValue

_STEPS = 20_000  # limit of (schema, value) pairs in one validation: some milliseconds
_ENUM_STEP = 64  # this many values of an enum are compared in the time of one such pair
_DIGITS = 4000  # Python reads integers up to 4300
_VALUE_LIMIT = 60  # characters of an invalid schema's value in its error message
_REFERENCE_KEYWORDS = ("$ref", "$dynamicRef", "$recursiveRef")


class AnswerSchema:
    """Compiled schema of a client. `path` is its path in the request. Raises `SchemaUnsupported`
    with the path of an invalid part. Formats are validated only with `has_formats`; otherwise it is
    the grammar that enforces them."""

    def __init__(self, schema: JsonValue, path: Path, *, has_formats: bool = False) -> None:
        self._schema = lower_escapes(schema)
        try:
            self._validator = _compile(self._schema, has_formats)
        except (ReferencingError, ValueError) as error:
            location = _client_location(schema, self._schema, getattr(error, "instance_path", []))
            raise _schema_error(schema, path, location) from error

    def rejects(self, text: str, *, needs_no_validation: bool = True) -> bool:
        """Returns True if this complete answer violates the schema. An answer that may take too
        long to validate counts as a violation, unless it `needs_no_validation`, because its grammar
        enforced the whole schema."""
        try:
            value = json.loads(text, parse_float=Decimal, parse_int=_integer)
        except (RecursionError, InvalidOperation):  # the latter: exponents beyond 10**18
            return not needs_no_validation
        except ValueError:
            return True
        if not self._is_cheap(value):
            return not needs_no_validation
        return not self._validator.is_valid(value)

    def _is_cheap(self, value: JsonValue) -> bool:
        """Returns True if a validation surely takes few steps: with references that multiply, a
        validator may never end. Returns False for a reference that cannot be resolved here."""
        try:
            return self._takes_few_steps(value)
        except (LookupError, ValueError, TypeError):
            return False

    def _takes_few_steps(self, value: JsonValue) -> bool:
        unread: list[tuple[JsonValue, JsonValue]] = [(self._schema, value)]
        steps = 0
        while unread and steps <= _STEPS:
            schema, part = unread.pop()
            steps += 1
            if isinstance(schema, dict):
                steps += len(schema.get("enum", ())) // _ENUM_STEP
                if schema.get("uniqueItems") and isinstance(part, list):
                    steps += len(part)
                unread += self._in_place_subschemas(schema, part)
                unread += _children(schema, part)
        return not unread

    def _in_place_subschemas(
        self, schema: dict[str, JsonValue], value: JsonValue
    ) -> Iterator[tuple[JsonValue, JsonValue]]:
        """Yields the subschemas for the same value."""
        for keyword in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(keyword, ()):
                yield part, value
        for keyword in ("not", "if", "then", "else"):
            yield schema.get(keyword, True), value
        for keyword in ("dependentSchemas", "dependencies"):
            for part in schema.get(keyword, {}).values():
                yield part, value
        for keyword in _REFERENCE_KEYWORDS:
            if isinstance(schema.get(keyword), str):
                yield self._resolve(schema[keyword]), value

    @cached_property
    def _references(self) -> References:
        return References(self._schema)

    def _resolve(self, reference: str) -> JsonValue:
        """Resolves a reference relative to the schema's root. Raises `LookupError` for one that has
        no target there, such as those within a subschema with its own `$id`."""
        target = self._references.resolve(reference, self._references.root.base)
        if target is None:
            raise LookupError(reference)
        return target.schema


def _children(
    schema: dict[str, JsonValue], value: JsonValue
) -> Iterator[tuple[JsonValue, JsonValue]]:
    """Yields the subschemas for the parts of a value."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        everywhere = [*schema.get("patternProperties", {}).values()]
        everywhere += [
            schema.get(keyword, True)
            for keyword in ("additionalProperties", "unevaluatedProperties", "propertyNames")
        ]
        for name, part in value.items():
            yield properties.get(name, True), part
            yield from ((one, part) for one in everywhere)
    elif isinstance(value, list):
        items = schema.get("items", True)
        first = items if isinstance(items, list) else schema.get("prefixItems", [])
        yield from zip(first, value, strict=False)
        everywhere = [
            schema.get(keyword, True)
            for keyword in ("additionalItems", "unevaluatedItems", "contains")
        ]
        everywhere += [] if isinstance(items, list) else [items]
        for part in value:
            yield from ((one, part) for one in everywhere)


def _compile(schema: JsonValue, has_formats: bool) -> Any:  # Any: the library has no type hints
    def compile_one(one: JsonValue) -> Any:
        return validator_for(
            one,
            offline=True,
            validate_formats=has_formats,
            pattern_options=FancyRegexOptions(),  # unsupported patterns are rejected by keyword
        )

    try:
        return compile_one(schema)
    except (ReferencingError, ValidationError) as error:
        if getattr(error, "instance_path", []):
            raise
    return compile_one(without_unused(schema))


def _client_location(
    schema: JsonValue, lowered: JsonValue, location: Sequence[str | int]
) -> list[str | int]:
    """Maps the validator's location in the rewritten schema to the client's. The two differ in the
    keys that are regular expressions, whose escapes were rewritten. The validator leaves out empty
    names, and gives numeric ones as numbers."""
    found: list[str | int] = []
    for step in location:
        while isinstance(lowered, dict) and str(step) not in lowered and "" in lowered:
            found.append("")
            schema, lowered = schema[""], lowered[""]
        name = key = step
        try:
            if isinstance(lowered, dict):
                key = str(step)
                name = list(schema)[list(lowered).index(key)]
            schema, lowered = schema[name], lowered[key]
        except (LookupError, TypeError, ValueError):  # beside an empty name is one like this step
            break
        found.append(name)
    return found


def _schema_error(schema: JsonValue, path: Path, location: list[str | int]) -> SchemaUnsupported:
    if not location and isinstance(schema, dict):
        unresolved = find_unresolved(References(schema))
        if unresolved is not None:
            reference = str(_value_at(schema, unresolved))[:100]
            message = f"The reference `{reference}` cannot be resolved."
            return SchemaUnsupported(message, (*path, *unresolved))
        if "$schema" in schema:
            return SchemaUnsupported(
                "This `$schema` is not supported; leave it out.", (*path, "$schema")
            )
    keyword = next((name for name in reversed(location) if isinstance(name, str)), "schema")
    value = json.dumps(_value_at(schema, location), ensure_ascii=False, default=str)
    excerpt = value if len(value) <= _VALUE_LIMIT else value[: _VALUE_LIMIT - 3] + "..."
    is_key = location[-2:-1] == ["patternProperties"]
    if is_key or location[-1:] == ["pattern"]:
        expression = str(location[-1])[:_VALUE_LIMIT] if is_key else excerpt
        return SchemaUnsupported(
            f"The schema is not valid: {expression} is not a supported regular expression.",
            (*path, *location),
        )
    return SchemaUnsupported(
        f"The schema is not valid: `{keyword}` cannot be {excerpt}.", (*path, *location)
    )


def _value_at(schema: JsonValue, path: Sequence[str | int]) -> JsonValue:
    for name in path:
        schema = schema[name]
    return schema


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _DIGITS else Decimal(digits)
