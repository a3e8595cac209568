"""Strict parameters: enforced by the family's grammar, or refused by their param."""

import time
from typing import Any

import pytest

from llm_backend.backends.local.markup import FAMILIES
from llm_backend.backends.local.markup.family import ArgumentStyle
from llm_backend.backends.local.markup.parameters import (
    check_strict,
    is_text,
    resolve_references,
    value_types,
)
from llm_backend.errors import UnsupportedField

TEXT = {"type": "string"}
CITY = {"type": "object", "properties": {"city": TEXT}, "required": ["city"]}
PARAM = "tools[0].function.parameters"
kinds = pytest.mark.parametrize(
    "kind", [one for one in ArgumentStyle if one is not ArgumentStyle.JSON]
)


def with_city(**schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"city": {**TEXT, **schema}}}


def refused(parameters: dict[str, Any], kind: ArgumentStyle) -> str | None:
    """Returns the refused param."""
    try:
        check_strict(resolve_references(parameters), kind, PARAM)
    except UnsupportedField as error:
        return error.param
    return None


def test_references_within_the_schema_are_resolved():
    schema = {
        "$ref": "#/$defs/call",
        "$defs": {
            "call": {
                "type": "object",
                "properties": {
                    "a/b": {"$ref": "#/$defs/words/a~1b", "description": "One of two."},
                    "node": {"$ref": "#/definitions/alias"},
                },
            },
            "words": {"a/b": {"enum": ["x", "y"]}},
        },
        "definitions": {"alias": {"$ref": "#/definitions/node"}, "node": {"type": "integer"}},
    }
    properties = resolve_references(schema)["properties"]

    assert properties["a/b"] == {"enum": ["x", "y"], "description": "One of two."}
    assert properties["node"] == {"type": "integer"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "minProperties": 1, "$defs": {"a": CITY}},
        {"$ref": 1},
        {"properties": []},
    ],
)
def test_reference_without_a_target_stays(schema):
    assert resolve_references(schema) == schema


def test_long_chains_and_wide_schemas_are_not_resolved():
    steps: dict[str, Any] = {f"a{at}": {"$ref": f"#/$defs/a{at + 1}"} for at in range(2000)}
    wide = {f"x-{at}": at for at in range(2000)}
    names = {f"p{at}": {"$ref": f"#/$defs/{('a0', 'wide')[at % 2]}"} for at in range(2000)}
    schema = {"properties": names, "$defs": {**steps, "a2000": TEXT, "wide": wide}}

    begun = time.process_time()
    assert resolve_references(schema) == schema
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("pattern", "^[A-Z]{3}$"), ("maxLength", 3), ("minLength", 1), ("format", "date"),
     ("anyOf", [{"const": "a"}])],
)  # fmt: skip
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_text_keywords_are_refused_where_texts_are_not_json(family, keyword, value):
    kind = FAMILIES[family].calls.notation.arguments
    is_json = kind in (ArgumentStyle.JSON, ArgumentStyle.KEYWORDS)

    expected = None if is_json else f"{PARAM}.properties.city.{keyword}"
    assert refused(with_city(**{keyword: value}), kind) == expected


@kinds
@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"anyOf": [CITY]}, ".anyOf"),
        ({**CITY, "minProperties": 1}, ".minProperties"),
        ({**CITY, "patternProperties": {"a": {}}}, ".patternProperties"),
        ({"$ref": "#/$defs/missing"}, ".$ref"),
        ({"type": "object"}, ""),
        ({"type": "object", "additionalProperties": TEXT}, ""),
        ({**CITY, "required": ["town"]}, ".required"),
    ],
)
def test_strict_parameters_without_names_are_refused(kind, schema, place):
    assert refused(schema, kind) == PARAM + place
    assert refused(schema, ArgumentStyle.JSON) is None


@kinds
@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "additionalProperties": False},
        {"type": "object", "properties": {}, "title": "None"},
        {**CITY, "additionalProperties": True, "minProperties": 0, "description": "A city."},
        {"$ref": "#/$defs/city", "$defs": {"city": CITY}},
        with_city(const="Paris", title="City", minLength=0),
        with_city(enum=["Paris", "Rome"]),
        {"type": "object", "properties": {"days": {"type": "integer", "minimum": 1}}},
    ],
)
def test_enforceable_strict_parameters_are_valid(kind, schema):
    assert refused(schema, kind) is None


@pytest.mark.parametrize(
    ("schema", "is_one"),
    [({"type": "string"}, True), ({"enum": ["a"]}, True), ({"const": "a"}, True),
     ({"type": ["string", "null"]}, False), ({"enum": ["a", 1]}, False), ({"enum": []}, False),
     ({"const": 1}, False), ({"enum": "a"}, False), ({}, False), (True, False)],
)  # fmt: skip
def test_is_text_only_for_schemas_of_strings(schema, is_one):
    assert is_text(schema) is is_one


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, {"string", "null"}),
        ({"oneOf": [{"type": "number"}, {"type": ["array", "null"]}]}, {"number", "array", "null"}),
        ({"enum": ["a", 1, 1.5, True]}, {"string", "integer", "number", "boolean"}),
        ({"anyOf": [{"const": "a"}, {"const": None}]}, {"string", "null"}),
        ({"allOf": [{"$ref": "#/$defs/word"}], "default": "a"}, {"string"}),
        ({"allOf": [{"type": ["string", "null"]}, {"minLength": 1}, {"enum": ["1", 2]}]},
         {"string"}),
        ({"anyOf": [{"$ref": "#/$defs/word", "title": "Word"}, {"type": "null"}]},
         {"string", "null"}),
    ],
)  # fmt: skip
def test_types_of_values_are_those_of_all_alternatives(schema, types):
    assert value_types(schema, {"$defs": {"word": {"enum": ["a", "b"]}}}) == types


@pytest.mark.parametrize(
    "schema",
    [{}, True, {"anyOf": [{"type": "string"}, {}]}, {"allOf": [{"minLength": 1}]},
     {"$ref": "#/$defs/missing"}, {"$ref": "#/$defs/loop"},
     {"anyOf": [{"$ref": "#/$defs/loop"}] * 99}],
)  # fmt: skip
def test_schema_without_types_allows_all_of_them(schema):
    loop = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/loop", "title": "Again"}]}

    assert len(value_types(schema, {"$defs": {"loop": loop}})) == 7
