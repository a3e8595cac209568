"""Budget of a request's schemas: refused by place before they are compiled."""

import time

import pytest

from llm_backend.backends.schemas import AnswerSchema, SchemaBudget, SchemaLimits, lower_schema
from llm_backend.errors import InvalidRequest

LETTERS = r"\p{L}{100}"
LARGE_BYTES = 4_296_875  # of these letters, as the validator compiles them


def spend(*schemas: object, **limits: int) -> str:
    """Returns the place and the sentence of the refusal; nothing if there is none."""
    budget = SchemaBudget(SchemaLimits(**limits))
    try:
        for index, schema in enumerate(schemas):
            budget.spend(schema, ("tools", index))
    except InvalidRequest as refused:
        return f"{refused.param}: {refused.message}"
    return ""


def of_pattern(pattern: str) -> dict:
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}


def test_expressions_of_all_schemas_share_one_budget():
    one = of_pattern(LETTERS)

    assert spend(one) == ""
    assert spend(one, one).startswith("tools[1].properties.a.pattern: The regular expressions")
    assert "`schema_patterns_limit_bytes`" in spend(one, one)
    assert spend(one, one, patterns_bytes=4 * LARGE_BYTES) == ""


@pytest.mark.parametrize(
    "pattern", [r"\p{L}{1000}", r"(\p{L}{20}){20}", r"^(?i)[\p{L}\p{N}]{900}$", r"a{9}" * 70_000]
)
def test_expression_that_is_too_large_alone_is_refused(pattern):
    assert "tools[0].properties.a.pattern: " in spend(of_pattern(pattern))
    assert spend({"patternProperties": {pattern: {}}}).startswith("tools[0].patternProperties")


@pytest.mark.parametrize(
    "pattern",
    [r"^\w+@\w+\.\w{2,4}$", r"^.{0,2000}$", r"^[\p{L} .-]{1,64}$", r"\d" * 200, "(", "a{5,2}"],
)
def test_usual_expression_is_within_the_budget_and_an_invalid_one_is_judged_later(pattern):
    assert spend(of_pattern(pattern)) == ""


def test_expression_within_a_value_counts_as_a_reference_may_lead_to_it():
    schema = {"$ref": "#/default", "default": {"pattern": r"\s" * 500}}

    assert spend(schema).startswith("tools[0].default.pattern: ")


def test_nodes_of_all_schemas_share_one_budget():
    one = {"enum": ["a"] * 600}

    assert spend(one, nodes=1000) == ""
    assert spend(one, one, nodes=1000).startswith("tools[1]: The schemas of the request have more")


def test_subschemas_of_all_schemas_share_one_budget():
    budget = SchemaBudget()
    budget.subschemas = 3

    lower_schema({"items": {"type": "string"}}, ("a",), budget=budget)
    with pytest.raises(InvalidRequest, match="more than 40000 subschemas"):
        lower_schema({"items": {"type": "string"}}, ("b",), budget=budget)


@pytest.mark.parametrize("escape", list("wWsSdD"))
def test_many_escapes_are_compiled_in_a_time_that_grows_as_their_number(escape):
    began = time.thread_time()
    schema = AnswerSchema({"type": "string", "pattern": f"\\{escape}" * 4000}, ())

    assert time.thread_time() - began < 5  # the validator alone takes 30 s and more
    assert schema.rejects('"a"')


def test_escapes_in_and_out_of_classes_mean_the_same():
    schema = AnswerSchema({"type": "string", "pattern": r"^\w[\s\d]\\w\[\d\]\cA$"}, ())

    assert not schema.rejects('"a1\\\\w[1]\\u0001"')
    assert schema.rejects('"a1aw[1]\\u0001"')


def test_expressions_that_are_keys_stay_apart_and_are_named_as_written():
    both = {r"^\w$": {"type": "string"}, r"^[\w]$": {"maxLength": 2}}
    schema = AnswerSchema({"patternProperties": both}, ())
    with pytest.raises(InvalidRequest) as refused:
        AnswerSchema({"patternProperties": {r"^\w$": {"type": "none"}}}, ("schema",))

    assert [schema.rejects(text) for text in ('{"a":"x"}', '{"a":1}', '{"a":"xyz"}')] == [
        False, True, True,
    ]  # fmt: skip
    assert refused.value.param == r"schema.patternProperties.^\w$.type"
