"""What a model must be held to is said by its family's grammar, or refused by its place."""

import time
from typing import Any

import pytest

from llm_backend.backends.local.markup import FAMILIES
from llm_backend.backends.local.markup.family import ArgumentStyle
from llm_backend.backends.local.markup.parameters import check_strict, is_text, resolve_references
from llm_backend.errors import UnsupportedField

TEXT = {"type": "string"}
CITY = {"type": "object", "properties": {"city": TEXT}, "required": ["city"]}
WHERE = "tools[0].function.parameters"
kinds = pytest.mark.parametrize(
    "kind", [one for one in ArgumentStyle if one is not ArgumentStyle.JSON]
)


def with_city(**schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"city": {**TEXT, **schema}}}


def refused(parameters: dict[str, Any], kind: ArgumentStyle) -> str | None:
    """The place that is refused."""
    try:
        check_strict(resolve_references(parameters), kind, WHERE)
    except UnsupportedField as error:
        return error.param
    return None


def test_references_within_the_schema_are_followed():
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
        {"$ref": "#/$defs/nobody"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "minProperties": 1, "$defs": {"a": CITY}},
        {"$ref": 1},
        {"properties": []},
    ],
)
def test_a_reference_that_cannot_be_followed_stays(schema):
    assert resolve_references(schema) == schema


def test_long_ways_and_wide_schemas_are_left_to_the_grammar():
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
def test_what_a_text_must_be_besides_is_refused_where_texts_are_not_json(family, keyword, value):
    kind = FAMILIES[family].calls.notation.arguments
    is_json = kind in (ArgumentStyle.JSON, ArgumentStyle.KEYWORDS)

    expected = None if is_json else f"{WHERE}.properties.city.{keyword}"
    assert refused(with_city(**{keyword: value}), kind) == expected


@kinds
@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"anyOf": [CITY]}, ".anyOf"),
        ({**CITY, "minProperties": 1}, ".minProperties"),
        ({**CITY, "patternProperties": {"a": {}}}, ".patternProperties"),
        ({"$ref": "#/$defs/nobody"}, ".$ref"),
        ({"type": "object"}, ""),
        ({"type": "object", "additionalProperties": TEXT}, ""),
        ({**CITY, "required": ["town"]}, ".required"),
    ],
)
def test_parameters_that_are_not_just_named_are_refused(kind, schema, place):
    assert refused(schema, kind) == WHERE + place
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
def test_what_can_be_said_is_not_refused(kind, schema):
    assert refused(schema, kind) is None


@pytest.mark.parametrize(
    ("schema", "is_one"),
    [({"type": "string"}, True), ({"enum": ["a"]}, True), ({"const": "a"}, True),
     ({"type": ["string", "null"]}, False), ({"enum": ["a", 1]}, False), ({"enum": []}, False),
     ({"const": 1}, False), ({"enum": "a"}, False), ({}, False), (True, False)],
)  # fmt: skip
def test_only_what_is_always_a_string_is_a_text(schema, is_one):
    assert is_text(schema) is is_one
