"""Object keywords, rewritten for llguidance."""

from typing import Any

from jsonschema_rs import validator_for

from llm_backend.backends.schemas.formats import lower_escapes, lower_pattern
from llm_backend.backends.schemas.keywords import Schema, keywords_of, types_of
from llm_backend.backends.schemas.node import Lowering, Node
from llm_backend.json_types import JsonValue

OBJECT_KEYWORDS = frozenset({
    "properties", "patternProperties", "additionalProperties", "required", "minProperties",
    "maxProperties", "propertyNames", "unevaluatedProperties",
})  # fmt: skip
_APPLICATORS = {"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies"}
_NAMES_LIMIT = 64
_CHOOSING = frozenset({"anyOf", "oneOf", "if", "dependencies", "dependentSchemas"})
_OTHER_TYPES = ["null", "boolean", "number", "string", "array"]


def lower_object(lowering: Lowering, node: Node) -> dict[str, JsonValue]:
    """Rewrites a schema's object keywords, except dependencies between properties."""
    schema: Schema = node.schema
    lowered: dict[str, JsonValue] = {}
    if "properties" in schema:
        lowered["properties"] = {
            name: lowering.lower(node.child(one, "properties", name))
            for name, one in schema["properties"].items()
        }
    if schema.get("patternProperties"):
        lowered["patternProperties"] = _lower_patterns(lowering, node)
    if isinstance(schema.get("required"), list) and schema["required"]:
        lowered["required"] = schema["required"]
    others = _additional_keyword(lowering, schema)
    if others is not None:
        lowered["additionalProperties"] = lowering.lower(node.child(schema[others], others))
    if "propertyNames" in schema:
        _lower_names(lowering, node, lowered)
    _lower_counts(lowering, node, lowered)
    return lowered


def _lower_patterns(lowering: Lowering, node: Node) -> dict[str, JsonValue]:
    keyword = "patternProperties"
    return {
        lower_pattern(pattern, keyword, (*node.path, keyword, pattern)): lowering.lower(
            node.child(one, keyword, pattern)
        )
        for pattern, one in node.schema[keyword].items()
    }


def _additional_keyword(lowering: Lowering, schema: Schema) -> str | None:
    """Returns the keyword for additional properties."""
    if "additionalProperties" in schema:
        return "additionalProperties"
    if schema.get("unevaluatedProperties", True) in (True, {}):
        return None
    if _APPLICATORS & schema.keys():
        lowering.mark_wider()
        return None
    return "unevaluatedProperties"


def _lower_names(lowering: Lowering, node: Node, lowered: dict[str, JsonValue]) -> None:
    """Rewrites `propertyNames` to additional properties with these names only."""
    names = node.schema["propertyNames"]
    if isinstance(names, dict) and "string" not in types_of(names):
        names = False
    if names is True or (isinstance(names, dict) and not keywords_of(names) - {"type"}):
        return
    if names is False:
        lowered["maxProperties"] = 0
        return
    others: Any = lowered.get("additionalProperties", True)
    pattern = _pattern_of(names, node)
    words = names.get("enum", [names["const"]] if "const" in names else None)
    if "$ref" in names or "patternProperties" in lowered or (pattern is None and words is None):
        lowering.mark_wider()
        return
    properties = lowered.get("properties", {})
    validator = validator_for(lower_escapes(names), validate_formats=False)
    allowed_properties = {
        name: one if validator.is_valid(name) else False for name, one in properties.items()
    }
    if words is not None:
        allowed = [name for name in words if isinstance(name, str) and validator.is_valid(name)]
        allowed_properties |= {name: others for name in allowed if name not in allowed_properties}
    elif others is not False:
        lowered["patternProperties"] = {pattern: others}
    lowered |= {"properties": allowed_properties, "additionalProperties": False}


def _pattern_of(names: Schema, node: Node) -> str | None:
    """Returns a regular expression of the names; None if there is none."""
    keywords = keywords_of(names) - {"type"}
    if keywords == {"pattern"}:
        path = (*node.path, "propertyNames", "pattern")
        return lower_pattern(names["pattern"], "pattern", path)
    if keywords <= {"minLength", "maxLength"}:
        minimum = int(names.get("minLength", 0))
        maximum = int(names["maxLength"]) if "maxLength" in names else ""
        return f"^[\\s\\S]{{{minimum},{maximum}}}$"
    return None


def _lower_counts(lowering: Lowering, node: Node, lowered: dict[str, JsonValue]) -> None:
    """Rewrites `minProperties` and `maxProperties`: llguidance counts only additional ones."""
    schema = node.schema
    minimum = int(schema.get("minProperties", 0))
    maximum = min((int(one) for one in _property_limits(schema, lowered)), default=None)
    required = set(lowered.get("required", ()))
    properties = lowered.get("properties", {})
    optional = [
        name for name, one in properties.items() if name not in required and one is not False
    ]
    is_closed = lowered.get("additionalProperties") is False and not lowered.get(
        "patternProperties"
    )
    total = len(required) + len(optional)
    lowered.pop("maxProperties", None)
    if _has_properties_elsewhere(lowering, node) and (
        minimum > len(required) or maximum is not None
    ):
        lowering.mark_wider()  # llguidance does not count properties of other schemas
        return
    others = lowered.get("additionalProperties", True)
    if maximum == len(required) and optional and not lowered.get("patternProperties"):
        lowered["properties"] = {
            **dict.fromkeys(properties, False),
            **{name: properties.get(name, others) for name in sorted(required)},
        }
        lowered["additionalProperties"] = False
    elif maximum is not None and not (is_closed and maximum >= total):
        if optional and not (is_closed and maximum == 1 and minimum <= 1 and not required):
            lowering.mark_wider()
        else:
            lowered["maxProperties"] = maximum
    if minimum > len(required):
        _require_count(lowering, lowered, minimum, optional, is_closed)


def _has_properties_elsewhere(lowering: Lowering, node: Node) -> bool:
    """Returns True if other schemas have properties of the same value."""
    others = [one for one in lowering.conjuncts(node) if one is not node.schema]
    return bool(_CHOOSING & node.schema.keys()) or any(
        isinstance(one, dict) and bool({"properties", *_CHOOSING} & one.keys()) for one in others
    )


def _property_limits(schema: Schema, lowered: Schema) -> list[int]:
    return [one["maxProperties"] for one in (schema, lowered) if "maxProperties" in one]


def _require_count(
    lowering: Lowering,
    lowered: dict[str, JsonValue],
    minimum: int,
    optional: list[str],
    is_closed: bool,
) -> None:
    required = lowered.get("required", [])
    if not optional:
        lowered["minProperties"] = minimum
        if minimum - len(required) > 1:  # llguidance does not notice a duplicate name
            lowering.mark_wider()
    elif is_closed and minimum >= len(set(required)) + len(optional):
        lowered["required"] = [*required, *optional]
        if minimum > len({*required, *optional}):
            lowered["minProperties"] = minimum
    elif is_closed and minimum == 1 and lowered.get("maxProperties", 1) == 1:
        lowered["minProperties"] = 1
    elif minimum - len(set(required)) == 1 and len(optional) <= _NAMES_LIMIT and is_closed:
        alternatives = [{"type": "object", "required": [name]} for name in optional]
        lowered["allOf"] = [{"anyOf": [*alternatives, {"type": _OTHER_TYPES}]}]
    else:
        lowering.mark_wider()
