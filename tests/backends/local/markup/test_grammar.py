"""Grammars of calls: they allow a family's own markup and forbid other calls."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import llguidance
import pytest

from llm_backend.backends.local.markup import FAMILIES, markup_of
from llm_backend.backends.local.markup.grammar import Function, calls_grammar, content_grammar
from llm_backend.errors import InvalidRequest
from tests.backends.local.markup.reading import parse_answer
from tests.backends.local.markup.samples import CITY, ONE, PARIS, TOOLS, TWO

WEATHER = Function(name="get_weather", parameters=CITY, is_strict=True)
PING = Function(name="ping", parameters=None)
THINKS = "{{ '</think>' }}"
ALWAYS_TOKENS = {"gpt-oss"}  # whose marks are tokens in every file
each_family = pytest.mark.parametrize("family", sorted(FAMILIES))
either_spelling = pytest.mark.parametrize("has_tokens", [True, False])


def each_spelling_of(families: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrizes these families, with marks as tokens and as text."""
    spellings = [(family, True) for family in sorted(families)]
    spellings += [(family, False) for family in sorted(set(families) - ALWAYS_TOKENS)]
    return pytest.mark.parametrize(("family", "has_tokens"), spellings)


class Bytes:
    """Vocabulary of all bytes and these marks."""

    bos_token_id = None

    def __init__(self, marks: Sequence[str]) -> None:
        self.tokens = [bytes([code]) for code in range(256)] + [mark.encode() for mark in marks]
        self.tokens.append(b"<end>")
        self.eos_token_id = len(self.tokens) - 1
        self.special_token_ids = list(range(256, len(self.tokens)))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


class Follower:
    """Matches texts with a family's grammar."""

    def __init__(self, family: str, template: str = "", *, has_tokens: bool = True) -> None:
        self.markup = markup_of(template, family)
        self.marks = list(dict.fromkeys(self.markup.markers)) if has_tokens else []
        self.tokens = {mark: 256 + index for index, mark in enumerate(self.marks)}

    def follow(
        self, text: str, functions: Sequence[Function] = (WEATHER, PING), **options: Any
    ) -> bool | None:
        """Returns whether the grammar allows the text; None for a prefix of allowed text."""
        options = {"is_required": True, "is_parallel": True, **options}
        return self._follow(text, calls_grammar(self.markup, functions, self.tokens, **options))

    def content(self, text: str, *, is_thinking: bool = False) -> bool | None:
        """Does the same for JSON content with a city."""
        grammar = content_grammar(self.markup, CITY, self.tokens, is_thinking=is_thinking)
        return self._follow(text, grammar)

    def _follow(self, text: str, grammar: str) -> bool | None:
        source = json.dumps({"grammars": [{"lark_grammar": grammar}]})
        tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes(self.marks)))
        matcher = llguidance.LLMatcher(tokenizer, source, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        tokens = self._split(text)
        if matcher.try_consume_tokens(tokens) < len(tokens):
            return False
        return True if matcher.is_accepting() else None

    def _split(self, text: str) -> list[int]:
        marks = sorted(self.marks, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
        return [
            token
            for piece in pieces
            for token in ([self.tokens[piece]] if piece in self.tokens else piece.encode())
        ]


@each_spelling_of(FAMILIES)
def test_grammar_allows_the_familys_calls(family, has_tokens):
    may_be_two = FAMILIES[family].calls.notation.between is not None
    text = TWO[family] if may_be_two else ONE[family]

    for is_required in (True, False):
        assert Follower(family, has_tokens=has_tokens).follow(text, is_required=is_required)


@each_spelling_of(FAMILIES)
@pytest.mark.parametrize(
    ("right", "wrong"), [("get_weather", "get_wether"), ("city", "town"), ("2", '"2"')]
)
def test_grammar_forbids_other_calls(family, has_tokens, right, wrong):
    text = ONE[family].replace(right, wrong)

    for is_required in (True, False):
        followed = Follower(family, has_tokens=has_tokens).follow(text, is_required=is_required)
        assert not followed


@each_spelling_of(TWO)
def test_grammar_without_parallel_calls_allows_one(family, has_tokens):
    one = Follower(family, has_tokens=has_tokens)

    for is_required in (True, False):
        assert one.follow(ONE[family], is_parallel=False, is_required=is_required)
        assert not one.follow(TWO[family], is_parallel=False, is_required=is_required)


@each_spelling_of(FAMILIES)
def test_grammar_allows_text_unless_a_call_is_required(family, has_tokens):
    text = "<|channel|>final<|message|>Hello!" if family == "gpt-oss" else "Hello!"
    one = Follower(family, has_tokens=has_tokens)

    assert one.follow(text, is_required=False)
    assert not one.follow(text, is_required=True)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gpt-oss"}))
@either_spelling
@pytest.mark.parametrize("is_required", [True, False])
def test_grammar_allows_reasoning_before_the_answer(family, has_tokens, is_required):
    one = Follower(family, THINKS, has_tokens=has_tokens)
    thought = f"Well ...\n</think>\n\n{ONE[family]}"

    assert one.follow("<think>\n" + thought, is_required=is_required)
    assert one.follow(thought, is_required=is_required, is_thinking=True)
    assert not one.follow(
        thought.replace("city", "town"), is_required=is_required, is_thinking=True
    )


def test_grammar_allows_harmony_channels_before_a_call():
    text = "<|channel|>analysis<|message|>Well ...<|end|><|start|>assistant" + ONE["gpt-oss"]

    assert Follower("gpt-oss").follow(text)


@each_family
def test_parser_reads_what_the_grammar_allows(family):
    one = Follower(family)
    markup = one.markup.without_variants()

    assert parse_answer([ONE[family]], markup, tools=TOOLS).parsed() == [PARIS]


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("gemma-4", r'{tags:["a\"b","é\n"],more:{"c d":[null,{"":"<|"}]},tag:"x\\"}'),
        ("function-gemma", r'{tags:["a\"b","é\n"],more:{"c d":[null,{"":"<|"}]},tag:"x\\"}'),
    ],
)
def test_json_strings_within_the_familys_notation_are_read(family, arguments):
    properties = {"tags": {"items": {"type": "string"}}, "more": {}, "tag": {"type": ["string"]}}
    function = Function(name="label", parameters={"type": "object", "properties": properties})
    notation = FAMILIES[family].calls.notation
    text = f"{notation.begin}call:label{arguments}{notation.end}"
    made = {"tags": ['a"b', "é\n"], "more": {"c d": [None, {"": "<|"}]}, "tag": "x\\"}
    tools = {"label": function.parameters}

    assert Follower(family).follow(text, [function])
    for pieces in ([text], text):
        answer = parse_answer(pieces, markup_of("", family), tools=tools)
        assert (answer.parsed(), answer.content) == ([("label", made)], "")


@pytest.mark.parametrize("family", ["gemma", "lfm2", "gemma-4", "function-gemma"])
def test_argument_whose_name_has_spaces_is_read(family):
    properties = {"first name": {"type": "integer"}, "$top": {"type": "integer"}}
    function = Function(name="find", parameters={"type": "object", "properties": properties})
    markup = markup_of("", family)
    notation = markup.calls.notation
    is_gemma = notation.call.startswith("call:")
    call = "call:find{first name:1,$top:2}" if is_gemma else "find(first name=1, $top=2)"
    text = f"{notation.begin}{call}{notation.end}"

    assert Follower(family).follow(text, [function])
    assert parse_answer([text], markup, tools={"find": function.parameters}).parsed() == [
        ("find", {"first name": 1, "$top": 2})
    ]


@each_family
def test_grammar_of_any_parameter_schema_compiles(family):
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/a"},
            "b": {"type": "array", "items": {"type": "number"}},
            "c": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "d": {"type": "object", "properties": {"e": {"type": "boolean"}}},
            "f": {"enum": ["x", 1, None]},
            "g": {},
            "h": True,
            "i": {"type": "string", "format": "unknown", "contentEncoding": "base64"},
        },
        "required": ["b", "d"],
        "$defs": {"a": {"type": "string", "maxLength": 3}},
    }
    function = Function(name="f", parameters=schema)

    assert Follower(family).follow("no call", [function]) is False


@each_family
def test_grammar_copies_definitions_to_references(family):
    properties = {f"p{at}": {"type": "integer"} for at in range(100)}
    properties["last"] = {"type": "array", "items": {"$ref": "#/$defs/a"}}
    definitions = {"a": {"description": "x" * 10_000, "type": "integer"}}
    schema = {"type": "object", "properties": properties, "$defs": definitions}
    grammar = calls_grammar(
        markup_of("", family),
        [Function(name="f", parameters=schema)],
        {},
        is_required=True,
        is_parallel=True,
    )

    assert grammar.count("x" * 10_000) == 1


def test_grammar_length_is_bounded():
    refers = {f"p{at}": {"type": "array", "items": {"$ref": "#/$defs/a"}} for at in range(10_000)}
    definitions = {"a": {"description": "x" * 100_000, "type": "integer"}}
    schema = {"type": "object", "properties": refers, "$defs": definitions}

    with pytest.raises(InvalidRequest, match="131072 bytes") as caught:
        Follower("qwen3-coder").follow("no call", [Function(name="f", parameters=schema)])
    assert caught.value.param == "tools"


@each_family
@pytest.mark.parametrize("schema", [{"type": "string", "const": "Paris"}, {"enum": ["Paris"]}])
def test_enumerated_strings_are_enforced_and_parsed_as_text(family, schema):
    parameters = {**CITY, "properties": {**CITY["properties"], "city": schema}}
    function = Function(name="get_weather", parameters=parameters, is_strict=True)
    is_escaped = '\\"' in ONE[family]
    right = ONE[family].replace('Pa\\"ris' if is_escaped else 'Pa"ris', "Paris")
    one = Follower(family)

    assert one.follow(right, [function])
    assert not one.follow(ONE[family], [function])
    tools = {"get_weather": parameters}
    called = parse_answer([right], one.markup.without_variants(), tools=tools).parsed()
    assert called == [("get_weather", {"city": "Paris", "days": 2})]


@either_spelling
def test_content_grammar_enforces_the_schema(has_tokens):
    model = Follower("hermes", has_tokens=has_tokens)

    assert model.content('{"city":"Paris"}')
    assert model.content('{"city": "Paris"}') is False
    assert model.content("Paris") is False


@either_spelling
def test_reasoning_before_content_is_unconstrained(has_tokens):
    model = Follower("hermes", THINKS, has_tokens=has_tokens)

    assert model.content('<think>\nWhere?\n</think>\n\n{"city":"Paris"}')
    assert model.content('{"city":"Paris"}')
    assert model.content('Where?\n</think>\n\n{"city":"Paris"}', is_thinking=True)
    assert model.content('{"city":"Paris"}', is_thinking=True) is None
    assert model.content("Where?\n</think>\n\nParis", is_thinking=True) is False


def test_harmony_content_is_the_final_message():
    model = Follower("gpt-oss")
    final = '<|channel|>final<|message|>{"city":"Paris"}'

    assert model.content(final)
    assert model.content(f"<|channel|>analysis<|message|>Where?<|end|><|start|>assistant{final}")
    assert model.content('{"city":"Paris"}') is False


@pytest.mark.parametrize(
    "family", sorted(name for name in FAMILIES if not markup_of("", name).is_bare)
)
def test_grammar_allows_calls_or_json_content(family):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    held = {"content": schema, "is_required": False}
    head = "<|channel|>final<|message|>" if family == "gpt-oss" else ""
    one = Follower(family)

    assert one.follow(ONE[family], **held)
    assert one.follow(head + '{"a":1}', **held)
    assert not one.follow(head + '{"a":"1"}', **held)
    assert not one.follow(head + "Hello!", **held)
    assert not one.follow(head + '{"a":1}', content=schema, is_required=True)
