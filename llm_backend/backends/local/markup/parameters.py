"""Parameter schemas of functions: resolves references, names the types of values, and rejects
strict schemas that a family's markup cannot express."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from llm_backend.backends.local.markup.family import ArgumentStyle
from llm_backend.backends.local.markup.lark import LARK
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonValue

_DEFINITIONS = ("$defs", "definitions")
_ANNOTATIONS = {
    "$anchor", "$comment", "$id", "$schema", "default", "deprecated", "description", "examples",
    "readOnly", "title", "writeOnly", *_DEFINITIONS,
}  # fmt: skip
_COMBINATORS = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_TEXT_KEYWORDS = (*_COMBINATORS, "pattern", "format", "minLength", "maxLength")
_OBJECT_KEYWORDS = (
    *_COMBINATORS, "enum", "const", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "dependentRequired", "dependentSchemas", "dependencies",
)  # fmt: skip
_NEUTRAL_VALUES: Mapping[str, JsonValue] = {
    "minLength": 0, "minProperties": 0, "patternProperties": {}, "dependentRequired": {},
    "dependentSchemas": {}, "dependencies": {},
}  # fmt: skip
"""Keywords with the values that constrain nothing."""
_TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_TYPES_BY_START = {
    "{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null",
}  # fmt: skip
"""JSON types of values other than numbers, by the first character of their text."""
_CHAIN_LIMIT = 16  # length of a chain of references
_ALTERNATIVES_LIMIT = 100  # schemas of which one holds for a value
_REFERENCE_LIMIT = 1000  # characters
_KEYWORDS_LIMIT = 100  # keywords of a referenced schema, which is copied into each reference


def resolve_references(parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Returns the schema with the targets of its own `$ref` and of those of its properties.
    References beside other keywords, or without a target in the schema, stay."""
    schema: Mapping[str, JsonValue] = _follow_reference(parameters, parameters)
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    resolved = {name: _follow_reference(one, parameters) for name, one in properties.items()}
    return {**schema, "properties": resolved}


def is_text(schema: JsonValue) -> bool:
    """Returns True if a parameter can only be a string."""
    if not isinstance(schema, dict):
        return False
    if "type" in schema:
        return bool(schema["type"] == "string")
    words = [schema["const"]] if "const" in schema else schema.get("enum")
    return isinstance(words, list) and bool(words) and all(isinstance(one, str) for one in words)


def value_types(schema: JsonValue, root: Mapping[str, JsonValue]) -> frozenset[str]:
    """Returns the JSON types that a parameter's schema allows, all of them if it names none."""
    types: set[str] = set()
    alternatives = [schema]
    for one in alternatives:  # which grow by those of each
        target = _follow_reference(one, root)
        if not isinstance(target, dict) or len(alternatives) > _ALTERNATIVES_LIMIT:
            return _TYPES
        named = _named_types(target)
        others = target.get("anyOf", target.get("oneOf"))
        parts = target.get("allOf")
        if named is not None:
            types |= named
        elif isinstance(others, list):
            alternatives += others
        elif isinstance(parts, list):
            types |= _types_of_all(parts[:_ALTERNATIVES_LIMIT], root)
        else:
            return _TYPES
    return frozenset(types)


def _types_of_all(parts: Sequence[JsonValue], root: Mapping[str, JsonValue]) -> frozenset[str]:
    """Returns the types that all of these schemas allow, by those that name any."""
    targets = [_follow_reference(part, root) for part in parts]
    named = [_named_types(target) for target in targets if isinstance(target, dict)]
    return _TYPES.intersection(*(types for types in named if types is not None))


def _named_types(schema: Mapping[str, JsonValue]) -> frozenset[str] | None:
    """Returns the types that a schema names, or those of its values; None if it names none."""
    words = [schema["const"]] if "const" in schema else schema.get("enum")
    if "type" in schema:
        named = schema["type"]
        return _TYPES & set(map(str, named if isinstance(named, list) else [named]))
    if not isinstance(words, list):
        return None
    return frozenset().union(*(_types_of(json.dumps(word)) for word in words))


def is_of_types(text: str, types: frozenset[str]) -> bool:
    """Returns True if a JSON text is a value of one of these types."""
    return bool(_types_of(text) & types)


def _types_of(text: str) -> set[str]:
    if text[0] in _TYPES_BY_START:
        return {_TYPES_BY_START[text[0]]}
    return {"number", "integer"} if float(text).is_integer() else {"number"}


def without_grammar_pattern(parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Returns the parameters for the template: a text parameter with a pattern is shown without the
    Lark grammar that was made of it."""
    properties = parameters.get("properties")
    if not isinstance(properties, dict):
        return parameters
    visible = {
        name: {keyword: value for keyword, value in schema.items() if keyword != LARK}
        if isinstance(schema, dict) and {LARK, "pattern"} <= schema.keys()
        else schema
        for name, schema in properties.items()
    }
    return {**parameters, "properties": visible}


def check_strict(parameters: Mapping[str, JsonValue], arguments: ArgumentStyle, param: str) -> None:
    """Raises `UnsupportedField` for the first field below `param` with a keyword that this notation
    of arguments cannot enforce. References in `parameters` are resolved already."""
    if arguments in (ArgumentStyle.JSON, ArgumentStyle.KEYWORDS):
        _refuse_lark(parameters, param)
    if arguments is ArgumentStyle.JSON:
        return  # the grammar enforces the whole schema
    _refuse_keywords(parameters, _OBJECT_KEYWORDS, param)
    properties = parameters.get("properties") or {}
    is_free = "properties" not in parameters and parameters.get("additionalProperties") is not False
    if is_free and parameters.keys() - _ANNOTATIONS:
        raise UnsupportedField(
            "Strict calls of this model need named parameters: give them as `properties`, or none "
            "with `additionalProperties: false`.",
            param=param,
        )
    for name in parameters.get("required") or ():
        if name not in properties:
            raise UnsupportedField(
                f"Strict calls of this model need named parameters: `{str(name)[:64]}` is "
                "required, but not among the `properties`.",
                param=f"{param}.required",
            )
    if arguments is not ArgumentStyle.KEYWORDS:  # whose strings are JSON, enforced by the grammar
        for name, schema in properties.items():
            if is_text(schema):
                by_lark = {"pattern"} if LARK in schema else set()  # replaced by the grammar
                others = {name: value for name, value in schema.items() if name not in by_lark}
                _refuse_keywords(others, _TEXT_KEYWORDS, f"{param}.properties.{name[:64]}")


def _refuse_lark(parameters: Mapping[str, JsonValue], param: str) -> None:
    properties = parameters.get("properties")
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        if isinstance(schema, dict) and LARK in schema and "pattern" not in schema:
            raise UnsupportedField(
                "This model writes its calls in quotes, where a `regex` can be enforced, but "
                "a Lark grammar cannot.",
                param=f"{param}.properties.{name[:64]}.{LARK}",
            )


def _refuse_keywords(
    schema: Mapping[str, JsonValue], keywords: tuple[str, ...], param: str
) -> None:
    for keyword in keywords:
        if keyword in schema and (
            keyword not in _NEUTRAL_VALUES or schema[keyword] != _NEUTRAL_VALUES[keyword]
        ):
            raise UnsupportedField(
                f"`{keyword}` cannot be enforced here, because this model does not write its calls "
                "in JSON; leave it out, or do without `strict`.",
                param=f"{param}.{keyword}",
            )


def _follow_reference(schema: JsonValue, root: Mapping[str, JsonValue]) -> JsonValue:
    """Returns the target of a schema's reference, with the schema's own annotations."""
    target = schema
    for step in range(_CHAIN_LIMIT + 1):
        if not isinstance(target, dict) or len(target) > _KEYWORDS_LIMIT:
            return schema
        if "$ref" not in target:
            break
        reference = target["$ref"]
        is_short = isinstance(reference, str) and len(reference) <= _REFERENCE_LIMIT
        is_alone = target.keys() - _ANNOTATIONS == {"$ref"}
        if step == _CHAIN_LIMIT or not is_short or not is_alone:
            return schema
        target = _resolve_pointer(reference, root)
    if target is schema:
        return schema
    notes = {name: value for name, value in schema.items() if name != "$ref"}
    return {**target, **notes} if notes else target


def _resolve_pointer(reference: str, root: Mapping[str, JsonValue]) -> JsonValue:
    """Resolves a JSON pointer in the schema; returns None if there is no target."""
    pointer, target = unquote(reference), root
    if pointer == "#":
        return root
    if not pointer.startswith("#/"):
        return None
    for part in pointer[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or name not in target:
            return None
        target = target[name]
    return target
