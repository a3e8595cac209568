"""Whatever a model of random weights says, it is what the schema says: keyword by keyword, and for
generated schemas."""

import json
import random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from llm_backend.backends.schemas import lower_schema
from llm_backend.engine.messages import FinishReason, Generate, GrammarLimits, Sampling
from llm_backend.engine.sampling.constraint import Grammars
from llm_backend.engine.sampling.grammar_limits import GrammarError
from llm_backend.errors import InvalidRequest
from tests.engine.gguf_models import MERGED
from tests.examples import examples

WORD = {"type": "string", "maxLength": 5}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
CLOSED = {"type": "object", "additionalProperties": False}

SCHEMAS: list[dict[str, Any]] = [
    # type
    {"type": "null"},
    {"type": "boolean"},
    {"type": ["boolean", "null"]},
    {"type": ["string", "null"], "maxLength": 4},
    # enum, const
    {"enum": ["one", 2, 3.5, None, True, [1, {"a": []}], {"b": "c"}, 'q"\n\\', "é\u2603"]},
    {"const": {"a": [1, "x", None, False, -0.5e3]}},
    {"const": ""},
    {"type": "string", "enum": ["a", 3]},
    # numbers
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 102},
    {"type": "integer", "minimum": 0, "maximum": 400, "multipleOf": 37},
    {"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.25},
    {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": -1, "exclusiveMaximum": 1},
    {"type": "integer", "minimum": 0, "maximum": 90, "multipleOf": 2.5},
    # strings
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "minLength": 3, "maxLength": 3},
    {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": "^[a-c]{2,4}(x|yz)$"},
    {"type": "string", "pattern": "^\\d{3}-\\w{2}$"},
    {"type": "string", "pattern": "b", "maxLength": 6},
    {"type": "string", "pattern": "^a", "minLength": 2, "maxLength": 4},
    *({"type": "string", "format": name} for name in ("date", "time", "ipv4", "uuid")),
    {"type": "string", "format": "date-time", "maxLength": 25},
    {"type": "string", "format": "duration", "maxLength": 12},
    {"type": "string", "format": "email", "maxLength": 14},
    {"type": "string", "format": "hostname", "maxLength": 12},
    {"type": "string", "format": "ipv6", "maxLength": 20},
    {"type": "string", "format": "uri", "maxLength": 20},
    # arrays
    {"type": "array", "items": DIGIT, "maxItems": 4},
    {"type": "array", "items": DIGIT, "minItems": 2, "maxItems": 2},
    {"type": "array", "items": False},
    {"type": "array", "prefixItems": [DIGIT, WORD], "items": False},
    {"type": "array", "prefixItems": [DIGIT, WORD], "minItems": 2, "items": {"const": 1},
     "maxItems": 4},
    {"type": "array", "prefixItems": [DIGIT, DIGIT], "minItems": 1, "maxItems": 1},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
     "items": [DIGIT, {"type": "null"}], "additionalItems": False, "minItems": 2},
    {"type": "array", "items": {"type": "array", "items": DIGIT, "maxItems": 2}, "maxItems": 2},
    # objects
    {**CLOSED, "properties": {"a": DIGIT, "b": WORD}, "required": ["b"]},
    {**CLOSED, "properties": {"a": DIGIT, "b": WORD}},
    {**CLOSED},
    {**CLOSED, "properties": {"a b": DIGIT, 'q"\\': DIGIT, "": DIGIT}, "required": ['q"\\', ""]},
    {"type": "object", "properties": {"a": DIGIT}, "required": ["a"],
     "additionalProperties": {"type": "null"}, "maxProperties": 2},
    {"type": "object", "additionalProperties": DIGIT, "propertyNames": {"maxLength": 5},
     "minProperties": 1, "maxProperties": 2},
    {**CLOSED, "patternProperties": {"^a[bc]$": DIGIT, "^x$": {"type": "null"}},
     "maxProperties": 2},
    {**CLOSED, "properties": {"abc": WORD}, "patternProperties": {"^n[0-9]$": DIGIT},
     "required": ["abc"], "maxProperties": 2},
    {**CLOSED, "properties": {"a": False, "b": DIGIT}, "required": ["b"]},
    # together
    {"anyOf": [DIGIT, {"type": "null"}, {**CLOSED, "properties": {"a": WORD}}]},
    {"anyOf": [{"type": "string"}, {"type": "integer"}], "enum": ["a", 1, None]},
    {"oneOf": [{**CLOSED, "properties": {"kind": {"const": kind}, kind: DIGIT},
                "required": ["kind"]} for kind in ("cat", "dog")]},
    {"oneOf": [{"type": "null"}, DIGIT]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 6}]},
    {"allOf": [{"properties": {"a": DIGIT}, "required": ["a"]},
               {"properties": {"b": WORD}, "required": ["b"]}],
     "type": "object", "properties": {"a": True, "b": True}, "additionalProperties": False},
    {"type": "string", "allOf": [{"pattern": "^[a-m]+$"}, {"maxLength": 4}]},
    # references
    {"$defs": {"digit": DIGIT}, "type": "array", "items": {"$ref": "#/$defs/digit"},
     "maxItems": 3},
    {"definitions": {"a/b~c d": WORD}, "$ref": "#/definitions/a~1b~0c%20d"},
    {"$defs": {"x": {"$anchor": "here", **DIGIT}}, "$ref": "#here"},
    {"$defs": {"digit": {"type": "integer", "minimum": 0}}, "$ref": "#/$defs/digit",
     "maximum": 5},
    {"$defs": {"node": {**CLOSED, "properties": {"next": {"anyOf": [
        {"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["next"]}},
     "$ref": "#/$defs/node"},
    {"type": "object", "properties": {"in": {"$ref": "#"}}, "additionalProperties": False},
    # what says nothing
    {"title": "A", "description": "B", "default": 1, "examples": [1], "$comment": "C", **DIGIT},
]  # fmt: skip


def grammar(schema: object) -> str:
    compact = {"x-guidance": {"whitespace_flexible": False}}
    return f"start: %json {json.dumps(schema | compact)}"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("seed", "schema"), list(enumerate(SCHEMAS)), ids=lambda value: json.dumps(value)[:60]
)
async def test_constrained_answers_match_their_schema(say, seed, schema):
    deltas = await say(
        Generate(
            id=f"s{seed}",
            prompt="a",
            n=4,
            max_tokens=150,
            grammar=grammar(lower_schema(schema, ()).schema),
            sampling=Sampling(seed=seed, temperature=1.5),
        )
    )

    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    finished = {delta.index for delta in deltas if delta.finish_reason is FinishReason.STOP}
    assert finished, "no answer came to an end"
    for index in finished:
        text = "".join(delta.text for delta in deltas if delta.index == index)
        assert validator.is_valid(json.loads(text)), text


class Letters:
    """A vocabulary of bytes, some words, and an end."""

    tokens = [bytes([code]) for code in range(256)] + [
        word.replace("Ġ", " ").encode() for word in MERGED
    ]
    size = len(tokens) + 1
    end_tokens = markers = frozenset({size - 1})

    def token_bytes(self, token: int) -> bytes:
        return self.tokens[token] if token < len(self.tokens) else b"<end>"

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        return list(text.encode())


GRAMMARS = Grammars(Letters(), GrammarLimits())


def written(schema: object, dice: random.Random) -> str | None:
    """A text by the schema, every token any of those allowed; None if it becomes too long."""
    constraint = GRAMMARS.compile(grammar(schema)).result().constraint()
    text = b""
    for _ in range(400):
        (allowed,) = constraint.mask().nonzero()
        token = int(dice.choice(allowed))
        if token in Letters.end_tokens:
            return text.decode()
        text += Letters.tokens[token]
        constraint.accept(token)
        if constraint.is_complete:
            return text.decode()
    return None


names = st.text('ab c"\\é', max_size=4)
leaves = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.builds(
        lambda least, span: {"type": "integer", "minimum": least, "maximum": least + span},
        st.integers(-1000, 1000),
        st.integers(0, 500),
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(), names), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    names.map(lambda value: {"const": {"is": [value]}}),
)


def combined(inner):
    return st.one_of(
        st.dictionaries(names, inner, max_size=3).flatmap(
            lambda properties: st.lists(
                st.sampled_from(sorted(properties)) if properties else st.nothing(), unique=True
            ).map(lambda required: {**CLOSED, "properties": properties, "required": required})
        ),
        st.builds(
            lambda items, least, more: {
                "type": "array",
                "items": items,
                "minItems": least,
                "maxItems": least + more,
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda parts: {"type": "array", "prefixItems": parts, "items": False}
        ),
    )


@settings(max_examples=examples(60))
@example(schema={"enum": [9007199254740993]}, dice=random.Random(1))
@example(schema={"enum": [9007199254740994, -(2**63) + 1024]}, dice=random.Random(1))
@given(schema=st.recursive(leaves, combined, max_leaves=8), dice=st.randoms(use_true_random=False))
def test_constrained_text_matches_any_generated_schema(schema, dice):
    try:
        lowered = lower_schema(schema, ())
    except InvalidRequest as refusal:  # an integer that no grammar can write
        text = None
        assume(refusal.param and "2^53" in str(refusal))
    else:
        text = written(lowered.schema, dice)

    if text is not None:
        assert jsonschema_rs.validator_for(schema).is_valid(json.loads(text)), text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "string", "pattern": "^abc$", "maxLength": 2},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "string", "enum": [3]},
        {"anyOf": []},
        {"$ref": "#"},
        {"$ref": "#/$defs/missing"},
        {"type": "array", "items": {"not": {}}},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 2},
        {"type": "string", "format": "regex"},
        {"type": "string", "pattern": "(?=a)"},
        {"type": "object", "patternProperties": {"^a": {}, "^ab": {}}},
    ],
    ids=str,
)
def test_unsatisfiable_and_unsupported_schemas_are_refused(schema):
    with pytest.raises(GrammarError):
        GRAMMARS.compile(grammar(schema)).result()
