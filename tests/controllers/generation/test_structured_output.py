import json

import pytest

from llm_backend.controllers.generation.structured_output import StructuredOutput, structure_from
from llm_backend.errors import ApiError, InvalidRequest, UnsupportedField


def schema_format(schema: object, **fields: object) -> dict[str, object]:
    wanted = {"name": "answer", "schema": schema, **fields}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


async def refusal(body: dict[str, object]) -> ApiError:
    with pytest.raises(InvalidRequest) as caught:
        await structure_from(body)
    return caught.value


async def said(schema: object) -> object:
    """The schema as answers are held to it."""
    structure = await structure_from(schema_format(schema))
    assert structure.grammar is not None
    return structure.grammar.schema


@pytest.mark.parametrize("wanted", [None, {"type": "text"}])
async def test_text_follows_nothing(wanted):
    structure = await structure_from({"response_format": wanted})

    assert structure.grammar is None
    assert structure.schema is None


async def test_a_json_object_is_any_object():
    structure = await structure_from({"response_format": {"type": "json_object"}})

    assert structure.grammar is not None
    assert structure.grammar.schema == {"type": "object"}
    assert structure.schema is not None
    assert structure.schema.rejects("[]")
    assert not structure.schema.rejects('{"a": 1}')


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a" * 65])
async def test_a_name_that_no_schema_may_have_is_refused(name):
    error = await refusal(schema_format({"type": "integer"}, name=name))

    assert error.param == "response_format.json_schema.name"


@pytest.mark.parametrize("strict", [True, False, None])
async def test_a_schema_is_followed_strict_or_not(strict):
    structure = await structure_from(schema_format({"type": "integer"}, strict=strict))

    assert structure.grammar is not None
    assert structure.grammar.field == "response_format.json_schema.schema"


async def test_a_grammar_is_passed_on():
    structure = await structure_from({"grammar": 'start: "a"'})

    assert structure.grammar is not None
    assert (structure.grammar.text, structure.grammar.field) == ('start: "a"', "grammar")


async def test_the_order_of_properties_is_kept():
    schema = {"type": "object", "properties": {"z": {}, "a": {}}, "required": ["a", "z"]}

    assert json.dumps(await said(schema)) == json.dumps(schema)


@pytest.mark.parametrize(
    "idle",
    [
        {"uniqueItems": False},
        {"not": False},
        {"unevaluatedProperties": True},
        {"dependentRequired": {}},
        {"propertyNames": {}},
        {"format": "password"},
        {"x-guidance": {"lenient": True}},
    ],
)
async def test_neutral_keywords_of_a_schema_are_dropped(idle):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    idle_schema = {"type": "object", "properties": {"a": {"type": "string"} | idle}} | idle

    assert await said(idle_schema) == schema


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"items": {"uniqueItems": 1}}, "items.uniqueItems"),
        ({"properties": {"not": {"not": 1}}}, "properties.not.not"),
        ({"anyOf": [{}, {"propertyNames": {"maxLength": "1"}}]},
         "anyOf[1].propertyNames.maxLength"),
        ({"$defs": {"a": {"unevaluatedItems": 3}}}, "$defs.a.unevaluatedItems"),
        ({"prefixItems": [{"format": "regex"}]}, "prefixItems[0].format"),
        ({"additionalProperties": {"anyOf": [{"format": "regex"}]}},
         "additionalProperties.anyOf[0].format"),
        ({"$ref": "https://example.com/schema"}, "$ref"),
        ({"type": "strin"}, "type"),
        ({"properties": {"a": {"items": [{}]}}}, "properties.a.items"),
        ({"properties": {"a": {"minLength": -1}}}, "properties.a.minLength"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "properties.a.pattern"),
    ],
)  # fmt: skip
async def test_schemas_that_no_grammar_expresses_are_refused_by_path(schema, place):
    error = await refusal(schema_format(schema))

    assert error.param == f"response_format.json_schema.schema.{place}"
    assert error.code == "invalid_json_schema"


@pytest.mark.parametrize(
    "schema",
    [{"properties": {"uniqueItems": {}}}, {"enum": [{"not": 1}]}, {"const": {"$ref": "http://a"}},
     {"properties": {"default": {}}}],
)  # fmt: skip
async def test_names_and_values_are_no_keywords(schema):
    assert await said(schema) == schema


async def test_a_reference_to_nowhere_is_refused():
    error = await refusal(schema_format({"$ref": "#/$defs/missing"}))

    assert error.param == "response_format.json_schema.schema.$ref"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "grammar": 'start: "a"'}, "grammar"),
    ],
)  # fmt: skip
async def test_contradictory_constraints_are_refused_by_name(body, param):
    assert (await refusal(body)).param == param


async def test_calls_and_a_grammar_exclude_each_other():
    tools = [{"type": "function", "function": {"name": "f"}}]
    error = await refusal({"grammar": 'start: "a"', "tools": tools})

    assert isinstance(error, UnsupportedField)
    assert error.param == "grammar"


async def test_tools_are_ignored_beside_a_grammar_if_they_may_not_be_called():
    tools = [{"type": "function", "function": {"name": "f"}}]
    structure = await structure_from(
        {"grammar": 'start: "a"', "tools": tools, "tool_choice": "none"}
    )

    assert structure.grammar is not None


async def test_response_format_of_plain_text_may_have_more_fields():
    body = {"response_format": {"type": "text", "json_schema": None}}

    assert await structure_from(body) == StructuredOutput()
    assert (await structure_from({**body, "grammar": 'start: "a"'})).grammar is not None
