"""Object keywords, rewritten for llguidance."""

from typing import Any

from jsonschema_rs import validator_for

from llm_backend.backends.local.schemas.formats import lowered_pattern
from llm_backend.backends.local.schemas.kinds import Schema, said
from llm_backend.backends.local.schemas.node import Node, Whole
from llm_backend.json_types import JsonValue

__all__ = ["OBJECT_KEYWORDS", "lower_object"]

OBJECT_KEYWORDS = frozenset({
    "properties", "patternProperties", "additionalProperties", "required", "minProperties",
    "maxProperties", "propertyNames", "unevaluatedProperties",
})  # fmt: skip
_APPLICATORS = {"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies"}
_NAMES_MOST = 64
_CHOOSING = frozenset({"anyOf", "oneOf", "if", "dependencies", "dependentSchemas"})


def lower_object(whole: Whole, node: Node) -> dict[str, JsonValue]:
    """Rewrites a schema's object keywords, except dependencies between properties."""
    schema: Schema = node.schema
    lowered: dict[str, JsonValue] = {}
    if "properties" in schema:
        lowered["properties"] = {
            name: whole.lower(node.below(one, "properties", name))
            for name, one in schema["properties"].items()
        }
    if schema.get("patternProperties"):
        lowered["patternProperties"] = _patterns(whole, node)
    if isinstance(schema.get("required"), list) and schema["required"]:
        lowered["required"] = schema["required"]
    others = _others(whole, schema)
    if others is not None:
        lowered["additionalProperties"] = whole.lower(node.below(schema[others], others))
    if "propertyNames" in schema:
        _name(whole, node, lowered)
    _count(whole, node, lowered)
    return lowered


def _patterns(whole: Whole, node: Node) -> dict[str, JsonValue]:
    keyword = "patternProperties"
    return {
        lowered_pattern(pattern, keyword, (*node.path, keyword, pattern)): whole.lower(
            node.below(one, keyword, pattern)
        )
        for pattern, one in node.schema[keyword].items()
    }


def _others(whole: Whole, schema: Schema) -> str | None:
    """Returns the keyword for additional properties."""
    if "additionalProperties" in schema:
        return "additionalProperties"
    if schema.get("unevaluatedProperties", True) in (True, {}):
        return None
    if _APPLICATORS & schema.keys():
        whole.widen()
        return None
    return "unevaluatedProperties"


def _name(whole: Whole, node: Node, lowered: dict[str, JsonValue]) -> None:
    """Rewrites `propertyNames` to additional properties with these names only."""
    names = node.schema["propertyNames"]
    if names is True or (isinstance(names, dict) and not said(names) - {"type"}):
        return
    if names is False:
        lowered["maxProperties"] = 0
        return
    others: Any = lowered.get("additionalProperties", True)
    pattern = _pattern_of(names, node)
    words = names.get("enum", [names["const"]] if "const" in names else None)
    if "$ref" in names or "patternProperties" in lowered or (pattern is None and words is None):
        whole.widen()
        return
    properties = lowered.get("properties", {})
    validator = validator_for(names, validate_formats=False)
    kept = {name: one if validator.is_valid(name) else False for name, one in properties.items()}
    if words is not None:
        allowed = [name for name in words if validator.is_valid(name)]
        kept |= {name: others for name in allowed if name not in kept}
    elif others is not False:
        lowered["patternProperties"] = {pattern: others}
    lowered |= {"properties": kept, "additionalProperties": False}


def _pattern_of(names: Schema, node: Node) -> str | None:
    """Returns a regular expression of the names; None if there is none."""
    keywords = said(names) - {"type"}
    if keywords == {"pattern"}:
        path = (*node.path, "propertyNames", "pattern")
        return lowered_pattern(names["pattern"], "pattern", path)
    if keywords <= {"minLength", "maxLength"}:
        most = names.get("maxLength", "")
        return f"^[\\s\\S]{{{names.get('minLength', 0)},{most}}}$"
    return None


def _count(whole: Whole, node: Node, lowered: dict[str, JsonValue]) -> None:
    """Rewrites `minProperties` and `maxProperties`: llguidance counts only additional ones."""
    schema = node.schema
    least = int(schema.get("minProperties", 0))
    most = min((int(one) for one in _given(schema, lowered)), default=None)
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
    if _is_spread(whole, node) and (least > len(required) or most is not None):
        whole.widen()  # llguidance does not count properties of other schemas
        return
    if most is not None and most == len(required) and optional:
        lowered["properties"] = {
            name: one if name in required else False for name, one in properties.items()
        }
        lowered |= {"additionalProperties": False}
        lowered.pop("patternProperties", None)
        most = None if least <= most else most
    elif most is not None and not (is_closed and most >= total):
        if optional and not (is_closed and most == 1 and least <= 1 and not required):
            whole.widen()
        else:
            lowered["maxProperties"] = most
    if least > len(required):
        _at_least(whole, lowered, least, optional, is_closed)


def _is_spread(whole: Whole, node: Node) -> bool:
    """Returns True if other schemas have properties of the same value."""
    others = [one for one in whole.facets(node) if one is not node.schema]
    return bool(_CHOOSING & node.schema.keys()) or any(
        isinstance(one, dict) and bool({"properties", *_CHOOSING} & one.keys()) for one in others
    )


def _given(schema: Schema, lowered: Schema) -> list[int]:
    return [one["maxProperties"] for one in (schema, lowered) if "maxProperties" in one]


def _at_least(
    whole: Whole, lowered: dict[str, JsonValue], least: int, optional: list[str], is_closed: bool
) -> None:
    required = lowered.get("required", [])
    if not optional:
        lowered["minProperties"] = least
        if least - len(required) > 1:  # llguidance does not notice a duplicate name
            whole.widen()
    elif is_closed and least >= len(set(required)) + len(optional):
        lowered["required"] = [*required, *optional]
        if least > len({*required, *optional}):
            lowered["minProperties"] = least
    elif is_closed and least == 1 and lowered.get("maxProperties", 1) == 1:
        lowered["minProperties"] = 1
    elif least - len(set(required)) == 1 and len(optional) <= _NAMES_MOST and is_closed:
        ways = [{"type": "object", "required": [name]} for name in optional]
        lowered["allOf"] = [{"anyOf": [*ways, {"type": list(_NO_OBJECTS)}]}]
    else:
        whole.widen()


_NO_OBJECTS = ("null", "boolean", "number", "string", "array")
