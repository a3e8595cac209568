"""Parameter schemas of functions for grammars: resolves references, and rejects strict schemas
that a family's markup cannot express."""

from collections.abc import Mapping
from urllib.parse import unquote

from llm_backend.backends.local.markup.family import ArgumentStyle
from llm_backend.backends.local.markup.lark import LARK
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonValue

__all__ = ["check_strict", "is_text", "resolve_references", "without_grammar_pattern"]


_DEFINITIONS = ("$defs", "definitions")
_NOTES = {
    "$anchor", "$comment", "$id", "$schema", "default", "deprecated", "description", "examples",
    "readOnly", "title", "writeOnly", *_DEFINITIONS,
}  # fmt: skip
_COMBINED = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_OF_TEXT = (*_COMBINED, "pattern", "format", "minLength", "maxLength")
_OF_OBJECTS = (
    *_COMBINED, "enum", "const", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "dependentRequired", "dependentSchemas", "dependencies",
)  # fmt: skip
_IDLE: Mapping[str, JsonValue] = {
    "minLength": 0, "minProperties": 0, "patternProperties": {}, "dependentRequired": {},
    "dependentSchemas": {}, "dependencies": {},
}  # fmt: skip
"""Keywords with the values that constrain nothing."""
_STEPS_MOST = 16  # length of a chain of references
_REFERENCE_MOST = 1000  # characters
_KEYWORDS_MOST = 100  # of a referenced schema, which is copied into each reference


def resolve_references(parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Replaces the `$ref` of the schema itself, and of each property, by its target. References
    beside other keywords, or without a target in the schema, stay."""
    schema: Mapping[str, JsonValue] = _follow_reference(parameters, parameters)
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    followed = {name: _follow_reference(one, parameters) for name, one in properties.items()}
    return {**schema, "properties": followed}


def is_text(schema: JsonValue) -> bool:
    """Returns True if a parameter can only be a string."""
    if not isinstance(schema, dict):
        return False
    if "type" in schema:
        return bool(schema["type"] == "string")
    words = [schema["const"]] if "const" in schema else schema.get("enum")
    return isinstance(words, list) and bool(words) and all(isinstance(one, str) for one in words)


def without_grammar_pattern(parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Removes the Lark grammars of text parameters for the template, which shows their patterns."""
    properties = parameters.get("properties")
    if not isinstance(properties, dict):
        return parameters
    shown = {
        name: {keyword: value for keyword, value in schema.items() if keyword != LARK}
        if isinstance(schema, dict) and {LARK, "pattern"} <= schema.keys()
        else schema
        for name, schema in properties.items()
    }
    return {**parameters, "properties": shown}


def check_strict(parameters: Mapping[str, JsonValue], arguments: ArgumentStyle, where: str) -> None:
    """Raises `UnsupportedField` for the first place below `where` with a keyword that this notation
    of arguments cannot enforce. References in `parameters` are resolved already."""
    if arguments in (ArgumentStyle.JSON, ArgumentStyle.KEYWORDS):
        _refuse_lark(parameters, where)
    if arguments is ArgumentStyle.JSON:
        return  # the grammar enforces the whole schema
    _refuse(parameters, _OF_OBJECTS, where)
    properties = parameters.get("properties") or {}
    is_free = "properties" not in parameters and parameters.get("additionalProperties") is not False
    if is_free and parameters.keys() - _NOTES:
        raise UnsupportedField(
            "This model is held to parameters that are named: give them as `properties`, or none "
            "with `additionalProperties: false`.",
            param=where,
        )
    for name in parameters.get("required") or ():
        if name not in properties:
            raise UnsupportedField(
                f"This model is held to parameters that are named: `{str(name)[:64]}` is required, "
                "and not among the `properties`.",
                param=f"{where}.required",
            )
    if arguments is not ArgumentStyle.KEYWORDS:  # with keywords, strings are JSON too
        for name, schema in properties.items():
            if is_text(schema):
                by_lark = {"pattern"} if LARK in schema else set()  # which is equivalent
                held = {name: value for name, value in schema.items() if name not in by_lark}
                _refuse(held, _OF_TEXT, f"{where}.properties.{name[:64]}")


def _refuse_lark(parameters: Mapping[str, JsonValue], where: str) -> None:
    properties = parameters.get("properties")
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        if isinstance(schema, dict) and LARK in schema and "pattern" not in schema:
            raise UnsupportedField(
                "This model writes its calls in quotes, where it is held to a `regex` and not to a "
                "grammar in Lark.",
                param=f"{where}.properties.{name[:64]}.{LARK}",
            )


def _refuse(schema: Mapping[str, JsonValue], keywords: tuple[str, ...], where: str) -> None:
    for keyword in keywords:
        if keyword in schema and (keyword not in _IDLE or schema[keyword] != _IDLE[keyword]):
            raise UnsupportedField(
                f"This model is not held to `{keyword}` here, as it does not write its calls in "
                "JSON; leave it out, or do without `strict`.",
                param=f"{where}.{keyword}",
            )


def _follow_reference(schema: JsonValue, whole: Mapping[str, JsonValue]) -> JsonValue:
    """Returns the target of a schema's reference, with the schema's own annotations."""
    target = schema
    for step in range(_STEPS_MOST + 1):
        if not isinstance(target, dict) or len(target) > _KEYWORDS_MOST:
            return schema
        if "$ref" not in target:
            break
        reference = target["$ref"]
        is_short = isinstance(reference, str) and len(reference) <= _REFERENCE_MOST
        is_alone = target.keys() - _NOTES == {"$ref"}
        if step == _STEPS_MOST or not is_short or not is_alone:
            return schema
        target = _at(reference, whole)
    if target is schema:
        return schema
    notes = {name: value for name, value in schema.items() if name != "$ref"}
    return {**target, **notes}


def _at(reference: str, whole: Mapping[str, JsonValue]) -> JsonValue:
    """Resolves a JSON pointer in the schema; returns None if there is no target."""
    pointer, place = unquote(reference), whole
    if pointer == "#":
        return whole
    if not pointer.startswith("#/"):
        return None
    for part in pointer[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or name not in place:
            return None
        place = place[name]
    return place
