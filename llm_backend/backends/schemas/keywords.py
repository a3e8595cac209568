"""Keywords and types of JSON Schema, and the error for an unsupported one."""

from collections.abc import Mapping
from typing import TypeAlias

from llm_backend.contract.validation_messages import field_name
from llm_backend.errors import INVALID_JSON_SCHEMA, InvalidRequest
from llm_backend.json_types import JsonValue

Schema: TypeAlias = Mapping[str, JsonValue]
Path: TypeAlias = tuple[str | int, ...]

TYPES = ("null", "boolean", "number", "string", "array", "object")
KEYWORDS = frozenset({
    "$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "additionalProperties", "allOf",
    "anyOf", "const", "contains", "dependencies", "dependentRequired", "dependentSchemas", "else",
    "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "items", "maxContains",
    "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength",
    "minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties",
    "prefixItems", "properties", "propertyNames", "required", "then", "type", "unevaluatedItems",
    "unevaluatedProperties", "uniqueItems",
})  # fmt: skip
"""Keywords that may affect which values are valid."""

VALUE_KEYWORDS = frozenset({"const", "default", "enum", "examples"})
"""Keywords that hold values, not schemas."""


class SchemaUnsupported(InvalidRequest):
    """Error for a schema that cannot be enforced: the path, the keyword, one sentence."""

    def __init__(self, sentence: str, path: Path) -> None:
        super().__init__(sentence, param=field_name(path), code=INVALID_JSON_SCHEMA)


def keywords_of(schema: Schema) -> frozenset[str]:
    """Returns the schema's keywords that may affect which values are valid."""
    return KEYWORDS & schema.keys()


def types_of(schema: Schema) -> frozenset[str]:
    """Returns the types that `type` allows; an integer counts as a number."""
    types = schema.get("type", TYPES)
    names = [types] if isinstance(types, str) else types
    return frozenset("number" if name == "integer" else name for name in names)


def is_number(value: JsonValue) -> bool:
    """Returns True for a number but not for a boolean, which Python counts as an `int`."""
    return isinstance(value, int | float) and not isinstance(value, bool)
