"""Lowering of schemas: a grammar allows only valid values, or the lowered schema is inexact and its
answers are validated before they are sent."""

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_backend import exact_json
from llm_backend.backends.schemas import AnswerSchema, LoweredSchema, Path, lower_schema
from llm_backend.backends.schemas.budget import SchemaBudget
from llm_backend.engine.sampling.grammar_limits import GrammarError
from llm_backend.errors import InvalidRequest
from tests.backends.schemas.sampling import GRAMMARS, grammar, sample
from tests.examples import examples

WORD = {"type": "string", "maxLength": 4}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
CLOSED = {"type": "object", "additionalProperties": False}
KIND = {"enum": ["a", "b", "c"]}
AB = {**CLOSED, "properties": {"a": DIGIT, "b": DIGIT, "c": DIGIT}}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
BIG = 2**53


def kind(kind_name: str, /, **properties: Any) -> dict[str, Any]:
    return {
        **CLOSED,
        "properties": {"kind": {"const": kind_name}, **properties},
        "required": ["kind", *properties],
    }


EXACT: list[dict[str, Any]] = [
    # numbers: what is no float moves inward, or is not there
    {"type": "integer", "minimum": BIG + 1, "maximum": BIG + 9},
    {"type": "integer", "exclusiveMinimum": BIG, "exclusiveMaximum": BIG + 5},
    {"type": "number", "exclusiveMinimum": BIG + 2, "exclusiveMaximum": BIG + 9},
    {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    {"type": "integer", "minimum": 0, "maximum": 2**64},
    {"type": "integer", "minimum": -(10**300), "maximum": 5},
    {"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308},
    {"type": "number", "minimum": 0.1, "exclusiveMaximum": 0.3},
    {"type": "integer", "minimum": 10**16 + 1, "maximum": 10**17 - 1},
    {"type": "integer", "exclusiveMinimum": -1, "minimum": 3, "exclusiveMaximum": 7, "maximum": 9},
    {"enum": [2**60, 2**53, -(2**53), 1.5, 0]},
    {"const": {"a": [2**60]}},
    {"type": "number", "multipleOf": 0.07, "minimum": 0, "maximum": 90},
    {"type": "integer", "multipleOf": 0.07, "minimum": 0, "maximum": 90},
    {**DRAFT_4, "type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 5},
    # texts
    {"type": "string", "format": "json-pointer", "maxLength": 9},
    {"type": "string", "format": "relative-json-pointer", "maxLength": 9},
    {"type": "string", "format": "uri-reference", "maxLength": 9},
    {"type": "string", "format": "iri-reference", "maxLength": 9},
    {"type": "string", "format": "uri-template", "maxLength": 9},
    {"type": "string", "format": "idn-hostname", "maxLength": 9},
    {"type": "string", "format": "uri-reference", "pattern": "^[a-z]+$", "maxLength": 9},
    {"type": "string", "pattern": "^a\\0\\cAb$"},
    {"type": "string", "format": "unheard-of", "maxLength": 3},
    # arrays
    {"type": "array", "contains": {"const": 3}, "items": DIGIT, "maxItems": 3},
    {"type": "array", "contains": {"const": 3}, "minContains": 2, "items": DIGIT, "maxItems": 3},
    {"type": "array", "contains": {"const": 3}, "minContains": 0, "items": DIGIT, "maxItems": 3},
    {"type": "array", "uniqueItems": True, "items": DIGIT, "maxItems": 1},
    {"type": "array", "uniqueItems": True, "items": {"const": 1}},
    {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2, 3]}, "maxItems": 3},
    {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2, 3]}},
    {"type": "array", "uniqueItems": True, "items": {"enum": [1, 1.0, True, "a"]}, "minItems": 3},
    {"type": "array", "uniqueItems": True, "items": {"enum": ["a", {"b": [1]}, {"b": [2]}, None]}},
    {"type": "array", "uniqueItems": True, "items": {"enum": ["a", 1, 2], "type": "integer"}},
    {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}, "minItems": 1},
    {"type": "array", "uniqueItems": True, "minItems": 5, "maxItems": 5,
     "items": {"type": "integer", "minimum": 1, "exclusiveMaximum": 6}},
    {"type": "array", "uniqueItems": True, "items": {"enum": [f"t{n}" for n in range(16)]},
     "maxItems": 2},
    {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/k"}, "$defs": {"k": KIND}},
    {"type": "array", "uniqueItems": True, "items": {"anyOf": [{"const": "a"}, KIND]}},
    {"type": "array", "uniqueItems": True, "prefixItems": [KIND, {"const": "a"}, {"const": "b"}],
     "items": False},
    {"type": ["array", "null"], "uniqueItems": True, "items": {"enum": [1, 2]}},
    {"type": "array", "prefixItems": [DIGIT], "unevaluatedItems": False},
    {**DRAFT_7, "type": "array", "items": [DIGIT], "additionalItems": WORD, "maxItems": 3},
    # objects
    {**AB, "minProperties": 1},
    {**AB, "minProperties": 1, "maxProperties": 1},
    {**AB, "maxProperties": 1},
    {**AB, "maxProperties": 3},
    {**AB, "minProperties": 3},
    {**AB, "required": ["b"], "minProperties": 2},
    {**AB, "required": ["b"], "maxProperties": 1},
    {**AB, "maxProperties": 0},
    {"type": "object", "properties": {"a": DIGIT}, "unevaluatedProperties": False},
    {"type": "object", "propertyNames": {"enum": ["x", "y"]}, "additionalProperties": DIGIT},
    {"type": "object", "propertyNames": {"pattern": "^[xy]$"}, "additionalProperties": DIGIT,
     "maxProperties": 2},
    {"type": "object", "propertyNames": {"minLength": 2, "maxLength": 3}, "maxProperties": 1,
     "additionalProperties": DIGIT},
    {"type": "object", "propertyNames": {"maxLength": 2}, "properties": {"abc": DIGIT, "d": DIGIT},
     "additionalProperties": False},
    {"type": "object", "propertyNames": {"minLength": 1.0, "maxLength": 2.0}, "maxProperties": 1,
     "additionalProperties": DIGIT},
    {"type": "object", "propertyNames": {"enum": [1, "x"]}, "additionalProperties": DIGIT},
    {"type": "object", "propertyNames": False},
    {**AB, "dependentRequired": {"a": ["b", "c"]}},
    {**AB, "dependencies": {"a": ["b"], "b": {"required": ["c"]}}},
    {**AB, "dependentSchemas": {"a": {"properties": {"b": {"maximum": 3}}, "required": ["b"]}}},
    {**AB, "required": ["a"], "dependentRequired": {"a": ["c"], "z": ["y"]}},
    # combined
    {"oneOf": [kind("cat", lives=DIGIT), kind("dog", name=WORD)]},
    {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
     "$defs": {"cat": kind("cat", lives=DIGIT), "dog": kind("dog", name=WORD)}},
    {"oneOf": [{"type": "null"}, DIGIT, WORD]},
    {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 4},
               {"type": "integer", "minimum": 3, "maximum": 9}]},
    {**AB, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {**AB, "oneOf": [{"required": ["a"]}, {"required": ["b", "c"]}]},
    {**AB, "not": {"required": ["a"]}},
    {**AB, "not": {"required": ["a", "b"]}},
    {**AB, "not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
    {**AB, "not": {"properties": {"a": {"const": 3}}, "required": ["a"]}},
    {"enum": ["a", "b", 3], "not": {"const": "b"}},
    {"type": "string", "pattern": "^[ab]{1,2}$", "not": {"enum": ["a", "ab", ""]}},
    {"type": ["string", "null"], "maxLength": 1, "not": {"type": "null"}},
    {"type": "integer", "minimum": 0, "maximum": 9, "not": {"minimum": 4}},
    {"type": "boolean", "not": {"const": True}},
    {"type": "string", "maxLength": 3, "not": {"maxLength": 1}},
    {**CLOSED, "properties": {"kind": KIND, "x": DIGIT}, "required": ["kind"],
     "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]},
     "else": {"properties": {"x": False}}},
    {**CLOSED, "properties": {"kind": KIND, "x": DIGIT, "y": DIGIT}, "required": ["kind"],
     "allOf": [{"if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]}},
               {"if": {"properties": {"kind": {"const": "b"}}}, "then": {"required": ["y"]}}]},
    {**AB, "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}},
    {**AB, "if": {"required": ["a"]}, "else": {"required": ["c"]}},
    {**AB, "if": {"required": ["a"]}},
    {"type": "string", "allOf": [{"pattern": "^[a-m]+$"}, {"pattern": "a"}, {"maxLength": 3}]},
    # references
    {"properties": {"x": DIGIT, "y": {"$ref": "#/properties/x"}}, **CLOSED},
    {"properties": {"x": {"items": [DIGIT]}, "y": {"$ref": "#/properties/x/items/0"}},
     **CLOSED, **DRAFT_7},
    {**CLOSED, "properties": {"in": {"$ref": "#"}}, "maxProperties": 1},
    {"$id": "http://a.b/c", "$ref": "http://a.b/c#/$defs/d", "$defs": {"d": DIGIT}},
    {"$id": "http://a.b/c", "$ref": "other", "$defs": {"d": {"$id": "other", **DIGIT}}},
    {"$ref": "#here", "$defs": {"d": {"$anchor": "here", **DIGIT}}},
    {**DRAFT_7, "$ref": "#/definitions/d", "maxLength": 0, "definitions": {"d": WORD}},
    {"type": "object", "propertyNames": {"type": "null"}, "additionalProperties": DIGIT},
    {"type": "object", "propertyNames": {"type": ["integer"], "maxLength": 1}},
    {**CLOSED, "properties": {"x": {"$ref": "#/$defs/none"}, "y": DIGIT},
     "$defs": {"none": {"not": {}}}},
    {**DIGIT, "$defs": {"unused": {"format": "regex", "pattern": "(?=a)", "$ref": "http://x.y"}}},
]  # fmt: skip
WIDER: list[dict[str, Any]] = [
    {"type": "array", "items": DIGIT, "uniqueItems": True, "maxItems": 5},
    {"type": "array", "items": {"enum": [1, 2.5], "minimum": 1}, "uniqueItems": True},
    {"type": "array", "items": {"enum": [1, 2]}, "contains": {"const": 2}, "uniqueItems": True,
     "maxItems": 3},
    {"type": "array", "items": {"enum": ["a" * 2000, "b"]}, "uniqueItems": True, "maxItems": 2},
    {"type": "array", "items": DIGIT, "contains": {"const": 3}, "maxContains": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [DIGIT], "contains": {"const": 3}, "items": DIGIT,
     "maxItems": 3},
    {**AB, "minProperties": 2},
    {**AB, "maxProperties": 2},
    {"type": "object", "additionalProperties": DIGIT, "minProperties": 2, "maxProperties": 2},
    {"type": "object", "propertyNames": {"format": "ipv4"}, "additionalProperties": DIGIT,
     "maxProperties": 1},
    {"allOf": [{"properties": {"a": DIGIT}}], "unevaluatedProperties": False, "type": "object",
     "maxProperties": 1},
    {"type": "number", "minimum": 0, "maximum": 9, "not": {"type": "integer"}},
    {"type": "string", "maxLength": 2, "not": {"pattern": "^a"}},
    {"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "b$"}],
     "maxLength": 3},
    {"type": "string", "maxLength": 2, "if": {"pattern": "^a"}, "then": {"minLength": 2}},
    {"type": "string", "maxLength": 2, "if": {"pattern": "^a"}, "then": {"minLength": 2},
     "else": {"maxLength": 1}},
    {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "number", "minimum": 4}]},
]  # fmt: skip


@pytest.mark.parametrize("schema", EXACT, ids=lambda schema: json.dumps(schema)[:80])
def test_exact_grammar_allows_exactly_the_valid_values(schema):
    check = AnswerSchema(schema, ())
    lowered = lower_schema(schema, ())

    texts = [sample(lowered.schema, random.Random(seed)) for seed in range(12)]

    assert lowered.needs_no_validation
    assert [text for text in texts if text is not None and check.rejects(text)] == []
    assert any(text is not None for text in texts)


def permits(constraint, text: str) -> bool:
    """True if the grammar can generate exactly this text."""
    for byte in text.encode():
        if not constraint.mask()[byte]:
            return False
        constraint.accept(byte)
    return constraint.is_complete or bool(constraint.mask()[256])


@pytest.mark.parametrize(
    "pattern", [r"^\s$", r"^\S$", r"^[x\s]$", r"^[^\s]$", r"^[^\S]$", r"^[\S-]$", r"^[^x\S]$",
                r"^\w$", r"^\d$", r"^[^\d]$", r"^.$",
                r"^[^&&a]$", r"^[[a]$", r"^[a~~x]$", r"^[+--]$", r"^[^--a]$", r"^[^^-a\[]$",
                r'^[^"]$', r"^[^\\]$", r'^[^"\\]$', r"^[^!-~]$", r"^[\x00-!]$", r"^[\0-\x1f]$"],
)  # fmt: skip
def test_class_of_characters_is_the_same_in_grammar_and_validation(pattern):
    schema = {"type": "string", "pattern": pattern}
    check, lowered = AnswerSchema(schema, ()), lower_schema(schema, ())
    compiled = GRAMMARS.compile(grammar(lowered.schema)).result()
    characters = [chr(point) for point in (*range(0x80, 0x100), 0x1680, 0x2028, 0x0660, 0xFEFF)]
    texts = [
        json.dumps(character, ensure_ascii=False)
        for character in [*' !&+,-/0[^_ax~"\\\n\x01\x1f', *characters]
    ]

    permitted = [text for text in texts if permits(compiled.constraint(), text)]

    assert permitted == [text for text in texts if not check.rejects(text)]


@pytest.mark.parametrize(
    ("name", "text", "is_valid"),
    [
        ("date", "2024-02-29", True), ("date", "2000-02-29", True), ("date", "1999-12-31", True),
        ("date", "2021-02-29", False), ("date", "2100-02-29", False), ("date", "2023-04-31", False),
        ("time", "23:59:59.25+02:00", True), ("time", "22:59:60Z", False),
        ("time", "24:00:00Z", False), ("date-time", "2024-02-29T08:30:06Z", True),
        ("date-time", "2023-02-29T08:30:06Z", False),
        ("date-time", "1998-12-31T23:58:60Z", False), ("hostname", "api-2.example.com", True),
        ("hostname", f"{'a' * 61}.{'b' * 61}.{'c' * 61}.{'d' * 61}", True),
        ("hostname", ".".join(["a" * 62] * 4), False), ("hostname", "xn--x", False),
        ("hostname", "-a", False), ("hostname", "a-", False), ("idn-hostname", "xn--x", False),
    ],
)  # fmt: skip
def test_format_of_a_grammar_permits_only_valid_texts(name, text, is_valid):
    schema = {"type": "string", "format": name}
    compiled = GRAMMARS.compile(grammar(lower_schema(schema, ()).schema)).result()

    assert permits(compiled.constraint(), json.dumps(text)) == is_valid
    assert AnswerSchema(schema, (), has_formats=True).rejects(json.dumps(text)) <= (not is_valid)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, ["0.3", "0.5"], ["0", "-0"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-12}, ["0.0000000000006"], ["0"]),
        ({"type": "number", "exclusiveMinimum": 10, "exclusiveMaximum": 10.5}, ["10.25"], ["10"]),
        ({"type": "number", "minimum": -1.5, "exclusiveMaximum": -1}, ["-1.25"], ["-1"]),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 1}, ["0.75"], ["1", "1.0"]),
        ({**AB, "required": ["x"], "additionalProperties": DIGIT, "maxProperties": 1},
         ['{"x":1}'], ['{"x":"y"}', '{"a":1}']),
    ],
    ids=lambda value: json.dumps(value)[:40],
)  # fmt: skip
def test_bounds_and_counts_permit_only_valid_texts(schema, valid, invalid):
    compiled = GRAMMARS.compile(grammar(lower_schema(schema, ()).schema)).result()

    assert all(permits(compiled.constraint(), text) for text in valid)
    assert not any(permits(compiled.constraint(), text) for text in invalid)


def test_patterns_of_properties_beside_a_full_count_are_validated():
    schema = {
        "type": "object", "properties": {"code": WORD, "note": WORD}, "required": ["code"],
        "patternProperties": {"^code": {"maxLength": 3}}, "maxProperties": 1,
    }  # fmt: skip

    assert not lower_schema(schema, ()).needs_no_validation


def test_items_without_repeats_come_in_any_order_and_number():
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True}
    lowered = lower_schema(schema, ())

    texts = {sample(lowered.schema, random.Random(seed)) for seed in range(300)}

    assert texts == {
        json.dumps(items, separators=(",", ":"))
        for count in range(4)
        for items in itertools.permutations([1, 2, 3], count)
    }


def test_alternatives_of_unique_items_are_bounded_over_a_request():
    five = {"type": "array", "items": {"enum": [1, 2, 3, 4, 5]}, "uniqueItems": True}
    budget = SchemaBudget()

    are_sufficient = [lower_schema(five, (), budget=budget).needs_no_validation for _ in range(3)]

    assert are_sufficient == [True, True, False]


@pytest.mark.parametrize("schema", WIDER, ids=lambda schema: json.dumps(schema)[:80])
def test_grammar_wider_than_its_schema_is_not_exact(schema):
    check = AnswerSchema(schema, ())
    lowered = lower_schema(schema, ())

    texts = [sample(lowered.schema, random.Random(seed)) for seed in range(60)]

    assert not lowered.needs_no_validation
    assert any(text is not None and not check.rejects(text) for text in texts)


names = st.text('ab c"\\é', max_size=3)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.sampled_from([2**53, -(2**60), 0.5, -1.25, 1.0]),
    names,
)
leaves = st.one_of(
    st.just(True),
    st.sampled_from(["null", "boolean", "string", "integer"]).map(lambda name: {"type": name}),
    st.builds(
        lambda kind, low, span, step: {
            "type": kind, "minimum": low, "exclusiveMaximum": low + span, **step
        },
        st.sampled_from(["integer", "number"]),
        st.sampled_from([-7, 0, 2**53 - 3, 2**53 + 1, -(2**60), 0.25]),
        st.integers(1, 2000),
        st.sampled_from([{}, {"multipleOf": 0.5}]),
    ),
    st.builds(
        lambda least, more, rest: {
            "type": "string", "minLength": least, "maxLength": least + more, **rest
        },
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([{}, {"pattern": "^[a-c]*$"}, {"not": {"const": "ab"}}]),
    ),
    st.lists(values, min_size=1, max_size=3).map(lambda given: {"enum": given}),
    values.map(lambda value: {"const": value}),
)  # fmt: skip


def objects(inner):
    return st.builds(
        lambda properties, more: {"type": "object", "properties": properties} | more,
        st.dictionaries(names, inner, max_size=3),
        st.fixed_dictionaries(
            {},
            optional={
                "additionalProperties": st.sampled_from([False, {"type": "null"}]),
                "required": st.lists(names, max_size=2, unique=True),
                "minProperties": st.integers(0, 2),
                "maxProperties": st.integers(0, 3),
                "propertyNames": st.sampled_from(
                    [{"maxLength": 2}, {"pattern": "a"}, {"enum": ["a", "b"]}, {"minLength": 1}]
                ),
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner,
                                                     max_size=1),
                "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2,
                                                                     unique=True), max_size=1),
                "dependentSchemas": st.dictionaries(names, inner, max_size=1),
            },
        ),
    )  # fmt: skip


def arrays(inner):
    return st.builds(
        lambda least, more, rest: {
            "type": "array", "minItems": least, "maxItems": least + more, **rest
        },
        st.integers(0, 2),
        st.integers(0, 2),
        st.fixed_dictionaries(
            {},
            optional={
                "items": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "contains": inner,
                "minContains": st.integers(0, 2),
                "uniqueItems": st.booleans(),
            },
        ),
    )  # fmt: skip


def combined(inner):
    listed = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        objects(inner),
        arrays(inner),
        st.builds(lambda keyword, parts: {keyword: parts},
                  st.sampled_from(["anyOf", "oneOf", "allOf"]), listed),
        st.builds(lambda one, other: {"allOf": [one], "not": other}, inner, inner),
        st.builds(lambda one, two, three, four: {"anyOf": [one], "if": two, "then": three,
                                                 "else": four}, inner, inner, inner, inner),
        st.builds(lambda one: {"$ref": "#/$defs/a", "$defs": {"a": one}}, inner),
    )  # fmt: skip


@settings(max_examples=examples(150))
@example(schema={"enum": [9007199254740993]}, dice=random.Random(1))
@example(schema={"enum": [9007199254740992, 1152921504606846976]}, dice=random.Random(1))
@example(schema={"const": -(2**63)}, dice=random.Random(1))
@given(schema=st.recursive(leaves, combined, max_leaves=8), dice=st.randoms(use_true_random=False))
def test_text_by_any_lowered_schema_is_valid_or_must_be_validated(schema, dice):
    schema = {"allOf": [schema]} if isinstance(schema, bool) else schema
    refused = text = None
    needs_no_validation = False
    try:
        check = AnswerSchema(schema, ())
        lowered = lower_schema(schema, ())
        needs_no_validation = lowered.needs_no_validation
        text = sample(lowered.schema, dice)
    except InvalidRequest as refusal:
        refused = (refusal.code, bool(refusal.param))
    except GrammarError as error:
        steps = (error.location or "").split("/")[1:]
        place = [step.replace("~1", "/").replace("~0", "~") for step in steps]
        refused = ("invalid_json_schema", isinstance(lowered.client_path(place), tuple))

    assert refused in (None, ("invalid_json_schema", True))
    assert text is None or not needs_no_validation or not check.rejects(text), text


def lower_valid(schema: object, path: Path) -> LoweredSchema:
    AnswerSchema(schema, path)
    return lower_schema(schema, path)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"const": 9007199254740993}}}, "properties.a.const"),
        ({"items": {"enum": [1, 10**30]}}, "items.enum[1]"),
        ({"enum": [{"a": [-(2**63)]}]}, "enum[0].a[0]"),
        ({"const": 2**63}, "const"),
        ({"minimum": 2**53 + 1, "maximum": 2**53 + 1}, "minimum"),
        ({"type": "integer", "minimum": 10**18}, "minimum"),
        ({"type": "number", "maximum": -(10**18)}, "maximum"),
        ({"anyOf": [{}, {"pattern": "(?!a)b"}]}, "anyOf[1].pattern"),
        ({"$defs": {"a": {"pattern": r"(a)\1"}}, "$ref": "#/$defs/a"}, "$defs.a.pattern"),
        ({"patternProperties": {"(?<=a)": {}}}, "patternProperties.(?<=a)"),
        ({"not": {"not": {"format": "regex"}}}, "not.not.format"),
        ({"if": {"required": ["a"]}, "then": {"format": "regex"}}, "then.format"),
        ({"allOf": [{"$ref": "#/nowhere"}]}, "allOf[0].$ref"),
        ({"properties": {"a": {"$ref": "https://example.com/b"}}}, "properties.a.$ref"),
        ({"type": "integer", "multipleOf": 2**40}, "multipleOf"),
    ],
)
def test_unsupported_keyword_is_refused_by_its_path(schema, place):
    with pytest.raises(InvalidRequest) as caught:
        lower_valid(schema, ("tools", 2))

    keyword = place.rpartition(".")[2].partition("[")[0]
    assert (caught.value.param, caught.value.code) == (f"tools[2].{place}", "invalid_json_schema")
    assert (
        keyword in str(caught.value)
        or "expression" in str(caught.value)
        or "reference" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"1": {"type": "x"}}}, "properties.1.type"),
        ({"properties": {"": {"type": "x"}}}, "properties..type"),
        ({"properties": {"": {"properties": {"": {"pattern": "("}}}}},
         "properties..properties..pattern"),
        ({"properties": {"": {"properties": {"a": {"type": 1}}}, "properties": True}},
         "properties.properties"),
        ({"patternProperties": 5}, "patternProperties"),
        ({"patternProperties": {r"\d": {"properties": {"0": {"minLength": -1}}}}},
         r"patternProperties.\d.properties.0.minLength"),
    ],
)  # fmt: skip
def test_invalid_schema_is_refused_by_its_path_with_any_names(schema, place):
    with pytest.raises(InvalidRequest) as caught:
        AnswerSchema(schema, ())

    assert (caught.value.param, caught.value.code) == (place, "invalid_json_schema")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"const": 9007199254740993.0}', "const"),
        ('{"properties": {"a": {"enum": [1, 9007199254740993E0]}}}', "properties.a.enum[1]"),
        ('{"enum": [{"a": [90071992547409930e-1]}]}', "enum[0].a[0]"),
        ('{"const": 9007199254740994.0}', "const"),
        ('{"const": 1e23}', "const"),
        ('{"minimum": 9007199254740993.0, "maximum": 9007199254740993e0}', "minimum"),
        ('{"type": "integer", "multipleOf": 9007199254740993.0}', "multipleOf"),
    ],
)
def test_whole_decimal_beyond_floats_is_refused_by_its_path(text, place):
    with pytest.raises(InvalidRequest) as caught:
        lower_valid(exact_json.loads(text), ())

    assert (caught.value.param, caught.value.code) == (place, "invalid_json_schema")


@pytest.mark.parametrize("schema", EXACT[:20], ids=str)
def test_lenient_lowering_drops_unsupported_keywords(schema):
    spoilt = {"type": "object", "properties": {"a": {**schema, "format": "regex"}}}

    lowered = lower_schema(spoilt, (), is_lenient=True)

    assert not lowered.needs_no_validation
    GRAMMARS.compile(grammar(lowered.schema)).result()


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}},
          "required": ["a"]}, "properties.a"),
        ({"type": "object", "properties": {"a": {"items": {"allOf": [{"type": "string"},
          {"const": 1}]}, "type": "array", "minItems": 1}}, "required": ["a"]},
         "properties.a.items"),
        ({"type": "object", "properties": {"a": {"patternProperties": {"^a": {}, "b$": {}}}}},
         "properties.a.patternProperties"),
        ({"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
          "allOf": [{"$ref": "#/$defs/n", "minProperties": 1}]}}, "items": {"$ref": "#/$defs/n"}},
         "$defs.n"),
        ({"type": "object", "properties": {"a": {"type": "string", "minLength": 3,
          "maxLength": 2}}, "required": ["a"]}, "properties.a"),
        ({"type": "object", "properties": {"a": {"pattern": "a" * 5000}}}, "properties.a.pattern"),
        ({"type": "object", "properties": {"a": {"enum": list(range(6000))}}},
         "properties.a.enum"),
        ({"anyOf": [{"properties": {str(number): {} for number in range(2000)}}]},
         "anyOf[0].properties"),
    ],
)  # fmt: skip
def test_error_of_llguidance_names_the_clients_path(schema, place):
    lowered = lower_schema(schema, ("S",))

    with pytest.raises(GrammarError) as caught:
        GRAMMARS.compile(grammar(lowered.schema)).result()

    assert caught.value.location is not None
    path = lowered.client_path(
        [
            step.replace("~1", "/").replace("~0", "~")
            for step in caught.value.location.split("/")[1:]
        ]
    )
    named = ".".join(map(str, path)).replace(".0", "[0]")
    assert named.startswith(f"S.{place}"), named
    assert "coerce" not in str(caught.value)


def test_combinations_of_conditions_are_bounded():
    schema: dict[str, Any] = {"type": "object"}
    for depth in range(6):
        inner = json.dumps(schema)
        schema = {
            "if": {"required": [f"a{depth}"], "properties": {"b": json.loads(inner)}},
            "then": json.loads(inner),
            "else": json.loads(inner),
        }

    try:
        needs_no_validation = lower_schema(schema, ()).needs_no_validation
    except InvalidRequest as refusal:
        needs_no_validation = "too many" not in str(refusal)

    assert not needs_no_validation


def test_conjuncts_do_not_double_at_each_level_of_alternatives():
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"anyOf": [schema, {"type": "null"}]}

    assert lower_schema(schema, ()).needs_no_validation
