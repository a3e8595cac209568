"""Markup parser: calls and reasoning in every family's markup, in any chunks."""

import ast
import itertools
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_backend.backends.local.markup import (
    FAMILIES,
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    MarkupParser,
    markup_of,
)
from tests.backends.local.markup.reading import parse_answer
from tests.backends.local.markup.samples import ONE, PARIS, PING, ROME, SLIPS, TOOLS, TWO
from tests.examples import examples

AT_ONCE = {"llama", "json", "gpt-oss"}  # families whose calls are the whole answer
THINKS = "{{ '</think>' }}"  # a template that knows reasoning
HERMES = markup_of("", "hermes")
marks = sorted({mark for family in FAMILIES.values() for mark in family.calls.markers})
snippets = st.sampled_from(
    [*marks, *ONE.values(), *TWO.values(), '{"name": "', 'ping", "arguments": ', "{", "}", "[", "]",
     '"', "\\", "\\ud800", "NaN", "1e9", "\n", " ", "<", "<|", "[TOOL", "```json\n", "```", "ping",
     "<think>", "</think>", "Action:", "call:ping{", "get_weather(", "to=functions.ping", "é€"]
)  # fmt: skip
texts = st.lists(snippets, max_size=12).map("".join)
families = st.sampled_from(sorted(FAMILIES))


@pytest.mark.parametrize(
    ("family", "template", "begin"),
    [("hermes", "", ""), ("hermes", THINKS, "<think>x"),
     ("llama-function", "", '<function=ping>{"a": ')],
)  # fmt: skip
def test_white_space_is_parsed_in_linear_time(family, template, begin):
    def calls_of(chunks: int) -> int:
        calls = 0

        def count(_frame: object, _event: str, _argument: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            answer = parse_answer([begin, *["\n\n"] * chunks], markup_of(template, family))
        finally:
            sys.setprofile(None)
        assert answer.reasoning + answer.content.strip() in begin
        return calls

    assert calls_of(4000) < 2.2 * calls_of(2000)


def test_every_family_has_a_sample():
    assert set(ONE) == set(FAMILIES)


@pytest.mark.parametrize("family", sorted(ONE))
def test_call_is_parsed(family):
    answer = parse_answer([ONE[family]], markup_of("", family))

    assert answer.parsed() == [PARIS]
    assert answer.content == ""
    assert answer.complete_calls == 1


@pytest.mark.parametrize("family", sorted(TWO))
def test_consecutive_calls_are_parsed(family):
    answer = parse_answer([TWO[family]], markup_of("", family))

    assert answer.parsed() == [ROME, PING]
    assert answer.content == ""


@pytest.mark.parametrize(("family", "text"), SLIPS)
def test_variants_of_calls_are_parsed(family, text):
    answer = parse_answer([text], markup_of("", family))

    assert answer.parsed() == [PARIS]
    assert answer.content == ""


@pytest.mark.parametrize("family", sorted(set(ONE) - AT_ONCE))
def test_text_around_calls_is_content(family):
    answer = parse_answer([f"Let me look.\n{ONE[family]} There."], markup_of("", family))

    assert answer.parsed() == [PARIS]
    assert answer.content == "Let me look.\n There."


@pytest.mark.parametrize("family", sorted(ONE))
def test_calls_are_not_parsed_without_tools(family):
    text = ONE[family].rpartition("<|message|>")[2]
    answer = parse_answer([ONE[family]], markup_of("", family), tools={})

    assert answer.calls == []
    assert answer.content == text


@settings(max_examples=examples(300))
@given(families, texts, st.lists(st.integers(0, 400), max_size=10), st.booleans(), st.booleans())
def test_parts_do_not_depend_on_chunk_boundaries(family, text, places, is_thinking, is_cut):
    markup = markup_of(THINKS, family)
    cuts = sorted({place for place in places if place < len(text)} | {0, len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]

    whole = parse_answer([text], markup, is_thinking=is_thinking, is_cut=is_cut)

    assert parse_answer(pieces, markup, is_thinking=is_thinking, is_cut=is_cut) == whole
    assert parse_answer(text, markup, is_thinking=is_thinking, is_cut=is_cut) == whole


@settings(max_examples=examples(300))
@given(families.filter(lambda name: name != "gpt-oss"), texts)
def test_text_without_a_valid_call_is_unchanged_content(family, text):
    answer = parse_answer([text], markup_of("", family))

    if not answer.calls:
        assert answer.content == text


@settings(max_examples=examples(300))
@given(families, texts)
def test_arguments_are_always_valid_json(family, text):
    answer = parse_answer([text], markup_of("", family))

    assert answer.complete_calls == len(answer.calls)
    for _, arguments in answer.calls:
        assert isinstance(json.loads(arguments, parse_constant=pytest.fail), dict)
        json.loads(arguments).__repr__().encode()


@given(st.text(alphabet="<tool_cal>/ab", max_size=60))
def test_text_without_a_call_is_only_content(text):
    assert parse_answer(text, HERMES).content == text


def test_call_is_streamed_as_it_is_generated():
    parser = MarkupParser(HERMES, TOOLS)

    assert parser.feed('Hm. <tool_call>\n{"name": "get_weather", "argu') == [Content("Hm. ")]
    assert parser.feed('ments": {') == [CallBegin("get_weather"), CallArguments("{")]
    assert parser.feed('"city": "Par') == [CallArguments('"city": "Par')]
    assert parser.feed("is\\") == [CallArguments("is")]
    assert parser.feed('n", "days": 2') == [CallArguments('\\n", "days":')]
    assert parser.feed("}") == [CallArguments(" 2}"), CallEnd()]
    assert parser.feed("}\n</tool_call>") == []
    assert parser.finish() == []


def test_text_that_cannot_be_markup_is_emitted_at_once():
    assert MarkupParser(HERMES, TOOLS).feed("Hello <b>") == [Content("Hello <b>")]


@pytest.mark.parametrize(
    "inside", ["not json", "[1]", '{"name": 5}', '{"name": "f", "arguments": 1}', "", "<"]
)
def test_markup_without_a_valid_call_is_content(inside):
    text = f"<tool_call>{inside}</tool_call>"

    answer = parse_answer([text], HERMES)

    assert answer.calls == []
    assert answer.content == text


def test_invalid_call_is_completed_and_the_rest_is_content():
    answer = parse_answer(
        ['<tool_call>{"name": "f", "arguments": {"a": [1, NaN]}}</tool_call>'], HERMES
    )

    assert answer.calls == [("f", '{"a": [1]}')]
    assert answer.content == ", NaN]}}</tool_call>"


def test_call_without_its_closing_tag_is_parsed():
    assert parse_answer(['<tool_call>{"name": "f"}'], HERMES).calls == [("f", "{}")]


def test_truncated_call_keeps_its_partial_arguments():
    answer = parse_answer(
        ['<tool_call>{"name": "f", "arguments": {"a": "long st'], HERMES, is_cut=True
    )

    assert answer.calls == [("f", '{"a": "long st')]
    assert (answer.complete_calls, answer.content) == (0, "")


CUT = [
    *ONE.items(), *TWO.items(), *SLIPS,
    *((family, f"Let me look.\n{text}") for family, text in ONE.items() if family not in AT_ONCE),
    ("hermes", "<think>It is asked.</think>\n" + ONE["hermes"]),
]  # fmt: skip


@pytest.mark.parametrize("end", ["is_cut", "is_stopped"])
@pytest.mark.parametrize(("family", "text"), CUT)
def test_truncated_call_emits_no_markup_as_content(family, text, end):
    markup = markup_of(THINKS if "<think>" in text else "", family)
    for length in range(len(text)):
        for pieces in ([text[:length]], text[:length]):
            answer = parse_answer(pieces, markup, **{end: True})

            shown = answer.content.removeprefix("Let me look.").strip()
            assert not shown or "Let me look.".startswith(shown) or is_word(shown), text[:length]
            assert "<" not in answer.reasoning
            assert {name for name, _ in answer.calls} <= TOOLS.keys()
            if end == "is_stopped":
                answer.parsed()


def is_word(text: str) -> bool:
    """Returns whether a mark begins like text, as `functools[` and `Action:` do."""
    return text in "functools" or text in "Action"


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("json", '{"title": "Rome", "days": ['),
        ("json", '{"titl'),
        ("json", '{"name": "Al'),
        ("json", '{"name": "Alice"'),
        ("json", "[1, 2"),
        ("json", '{"arguments": {"a": 1'),
        ("llama", '{"name": "Alice", "parameters": {'),
        ("gemma", "```python\nprin"),
        ("gemma", "```python\nprint(1"),
        ("functools", "What a f"),
        ("hermes", "a < b and a <b"),
        ("command-r", "Acti"),
    ],
)
def test_truncated_text_that_is_no_call_is_content(family, text):
    answer = parse_answer([text], markup_of("", family), is_cut=True)

    assert (answer.content, answer.calls) == (text, [])


def test_lone_surrogate_ends_a_call():
    answer = parse_answer(
        ['<tool_call>{"name": "f", "arguments": {"a": "\\ud800x"}}</tool_call>'], HERMES
    )

    assert answer.parsed() == [("f", {"a": ""})]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"hi \ud83d\ude00 there", "hi \U0001f600 there"),
        (r"\ud83d", "\ufffd"),
        (r"\ude00 \ud83d!", "\ufffd \ufffd!"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    ],
)
def test_escaped_surrogates_of_a_literal_are_one_character(written, text):
    call = f'<|tool_call_start|>[ping(a="{written}", b=1)]<|tool_call_end|>'
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", "lfm2"))

        assert answer.parsed() == [("ping", {"a": text, "b": 1})]
        assert (answer.content, answer.complete_calls) == ("", 1)


LITERALS = [
    '"""a\nb"""', "'''it's \'\'here\'\' \\''' on'''", '""""a" b"""', '""', "''", '""""""',
    '"a" "b"',
    "('a'\n  \"b\")", '"" "b" ""', r'r"a\d\"b"', r'"a\d" r"\d" R"\n"', 'u"a"', 'b"a"', r'rb"\n"',
    '("long "\n "text")', ".5", "5.", "+3", "-3", "+.5", "1_000", "1_0.5e1_0", "0x10", "-0xFF",
    "0o17",
    "0b11", "1e3", "1.5E-3", "05.5", "True", "None", "(1, 2)", "(1)", "(1,)", "()", "( )", '("a")',
    '("a", "b")', "((1, 2), [(3,), ()])", "[(1), (2, 3)]", '{"a": (1, 2), "b" "c": .5}',
    r'"\U0001F600 \u00e9 \xe9 \033[1m \0 \7 \1234 \a\v\d"', '"a\\\nb"', "'''a\\\nb'''",
]  # fmt: skip
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
)  # fmt: skip


def check_literal(written: str, value: object) -> None:
    call = f"<|tool_call_start|>[ping(a={written}, b=[{written}], c={written})]<|tool_call_end|>!"
    expected = json.loads(json.dumps(value))
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", "lfm2"))

        assert answer.parsed() == [("ping", {"a": expected, "b": [expected], "c": expected})]
        assert (answer.content, answer.complete_calls) == ("!", 1)


@pytest.mark.parametrize("written", LITERALS)
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_literal_of_a_call_has_the_value_that_python_reads(written):
    value = ast.literal_eval(written)

    check_literal(written, value.decode() if isinstance(value, bytes) else value)


@given(literals)
def test_written_value_is_read_back_from_a_call(value):
    check_literal(repr(value), value)


@pytest.mark.parametrize(
    ("written", "read", "rest"),
    [("oops", None, "oops)"), ("05", None, "05)"), ("nan", None, "nan)"), ('"a" 5', "a", "5)"),
     ("some_name", None, "some_name)"), ('"a" but', "a", "but)"), ("1e9_99_", None, "1e9_99_)"),
     ("٣", None, "٣)"), (r'"\U00110000"', "", '")')],
)  # fmt: skip
def test_call_ends_before_what_is_no_literal(written, read, rest):
    call = f"<|tool_call_start|>ping(a={written})"
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", "lfm2"))

        assert (answer.parsed(), answer.content) == ([("ping", {"a": read})], rest)


@pytest.mark.parametrize(
    ("family", "call"),
    [("lfm2", '<|tool_call_start|>[get_weather(city="x", city="y", days=2, days=[1])]'
              "<|tool_call_end|>"),
     ("lfm2", '<|tool_call_start|>[get_weather("x", days=2, city=("y", {"a": 1}))]'
              "<|tool_call_end|>"),
     ("gemma-4", '<|tool_call>call:get_weather{city:<|"|>x<|"|>,city:<|"|>y<|"|>,days:2}'
                 "<tool_call|>")],
)  # fmt: skip
def test_keyword_argument_counts_once(family, call):
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", family))

        assert answer.calls == [("get_weather", '{"city": "x", "days": 2}')]
        assert answer.content == ""


@pytest.mark.parametrize("bracket", ["(", "[", "{1:"])
def test_deep_nesting_ends_a_call(bracket):
    call = f"<|tool_call_start|>ping(a={bracket * 5000}"

    answer = parse_answer([call], markup_of("", "lfm2"))

    assert (answer.complete_calls, answer.content[-3:]) == (1, call[-3:])


def test_call_without_arguments_ends_at_the_closing_tag_of_its_family():
    call = "<seed:tool_call>ping\n</seed:tool_call>"

    answer = parse_answer([call], markup_of("", "seed"))

    assert (answer.calls, answer.content) == ([("ping", "{}")], "")


def test_python_literals_and_raw_line_breaks_are_repaired():
    answer = parse_answer(
        ['<tool_call>{"name": "f", "arguments": {"a": True, "b": "1\n2"}}'], HERMES
    )

    assert answer.parsed() == [("f", {"a": True, "b": "1\n2"})]


def test_json_answer_without_a_known_tool_is_content():
    for family in ("llama", "json"):
        text = '{"name": "Bob", "parameters": {"age": 4}}'
        assert parse_answer([text], markup_of("", family)).content == text


def test_tagged_values_are_parsed_by_the_schema():
    tools = {"f": {"properties": {"a": {"type": "string"}, "b": {"type": "array"}, "c": {}}}}
    text = (
        "<tool_call><function=f><parameter=a>1</parameter><parameter=b>\n[1, 2]\n</parameter>"
        "<parameter=c>x</parameter></function></tool_call>"
    )

    answer = parse_answer([text], markup_of("", "qwen3-coder"), tools=tools)

    assert answer.parsed() == [("f", {"a": "1", "b": [1, 2], "c": "x"})]


_KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|>"
)
_HARMONY = "<|channel|>commentary to=functions.ping <|constrain|>json<|message|>"
WITHOUT_ARGUMENTS = [
    ("gpt-oss", _HARMONY), ("gpt-oss", _HARMONY + "<|call|>"),
    ("gpt-oss", _HARMONY + " null "), ("gpt-oss", _HARMONY + "null<|call|>"),
    ("mistral", "[TOOL_CALLS]ping[ARGS]"), ("mistral", "[TOOL_CALLS]ping[CALL_ID]a1[ARGS]null"),
    ("kimi", _KIMI + "<|tool_call_end|><|tool_calls_section_end|>"), ("kimi", _KIMI),
    ("kimi", _KIMI + " null<|tool_call_end|><|tool_calls_section_end|>"),
    ("llama-function", "<function=ping></function>"),
    ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>"
                      "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n"
                 "```json\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    *(("hermes", f'<tool_call>{{"name": "ping", "arguments": {none}}}</tool_call>')
      for none in ('""', '" "', "[]", "[ ]", '"[]"', "null", '"null"')),
]  # fmt: skip


@pytest.mark.parametrize(("family", "call"), WITHOUT_ARGUMENTS)
def test_call_without_arguments_is_parsed(family, call):
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", family))

        assert (answer.calls, answer.content) == ([("ping", "{}")], "")


@pytest.mark.parametrize("text", [_HARMONY, _KIMI, "[TOOL_CALLS]ping[ARGS]", "<function=ping>"])
@pytest.mark.parametrize("rest", ["", "n", "null"])
def test_call_cut_before_its_arguments_is_dropped(text, rest):
    families = {_HARMONY: "gpt-oss", _KIMI: "kimi", "<function=ping>": "llama-function"}
    markup = markup_of("", families.get(text, "mistral"))
    for end in ("is_cut", "is_stopped"):
        answer = parse_answer([text + rest], markup, **{end: True})

        assert (answer.calls, answer.content) == ([], "")


@pytest.mark.parametrize(
    ("family", "text"),
    [("mistral", "[TOOL_CALLS]ping"), ("mistral", "[TOOL_CALLS]ping[ARGS]none"),
     ("llama-function", "<function=ping>nullify</function>"),
     ("kimi", _KIMI + "1<|tool_call_end|>"),
     ("hermes", '<tool_call>{"name": "ping", "arguments": [1]}</tool_call>')],
)  # fmt: skip
def test_other_text_for_arguments_is_content(family, text):
    answer = parse_answer([text], markup_of("", family))

    assert (answer.calls, answer.content) == ([], text)


def test_call_after_one_without_arguments_is_parsed():
    text = "[TOOL_CALLS]ping[ARGS][TOOL_CALLS]ping[ARGS]{}"

    answer = parse_answer([text], markup_of("", "mistral"))

    assert (answer.calls, answer.content) == ([("ping", "{}")] * 2, "")


@pytest.mark.parametrize(
    "rest", [", and that is all", "; so", " ;", ',\n{"c": 2}', '; {"name": "other"} ; x', "!"]
)
def test_separator_without_a_call_is_content(rest):
    text = '{"name": "ping", "parameters": {}}'
    for pieces in ([text + rest], text + rest):
        answer = parse_answer(pieces, markup_of("", "llama"))

        assert (answer.calls, answer.content) == ([("ping", "{}")], rest)


OPTIONAL = [
    {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    {"type": ["string", "null"]},
    {"oneOf": [{"$ref": "#/$defs/word"}, {"type": "null"}]},
]
TAGGED = {
    "qwen3-coder": "<tool_call>\n<function=f>\n<parameter=a>\n{}\n</parameter>\n</function>\n"
    "</tool_call>",
    "glm": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
}


@pytest.mark.parametrize("family", sorted(TAGGED))
@pytest.mark.parametrize("schema", OPTIONAL)
@pytest.mark.parametrize(
    ("written", "value"),
    [("75001", "75001"), ("007", "007"), ("1e3", "1e3"), ("true", "true"), ('{"a": 1}', '{"a": 1}'),
     ("[1]", "[1]"), ("hello", "hello"), ("null", None), ('"quoted"', "quoted")],
)  # fmt: skip
def test_tagged_optional_text_stays_text(family, schema, written, value):
    tools = {"f": {"properties": {"a": schema}, "$defs": {"word": {"type": "string"}}}}
    call = TAGGED[family].format(written)
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", family), tools=tools)

        assert (answer.parsed(), answer.content) == ([("f", {"a": value})], "")


@pytest.mark.parametrize("family", sorted(TAGGED))
@pytest.mark.parametrize("name", ["user id", "é,(b)", "a'b", "x" * 200])
def test_tagged_argument_may_have_any_name(family, name):
    call = TAGGED[family].replace("parameter=a", f"parameter={name}").format("5")
    call = call.replace("<arg_key>a<", f"<arg_key>{name}<")
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", family))

        assert (answer.parsed(), answer.content) == ([("f", {name: "5"})], "")


@pytest.mark.parametrize("family", ["qwen3-coder", "glm"])
def test_tagged_argument_counts_once(family):
    again = {
        "qwen3-coder": "<parameter=a>\n2 < 3\n</parameter>\n<parameter=b>\nx\n</parameter>\n</func",
        "glm": "<arg_key>a</arg_key><arg_value>2</arg_value><arg_key>b</arg_key>\n"
        "<arg_value>x</arg_value>\n</tool",
    }[family]
    call = TAGGED[family].format("1").replace("</func" if "func" in again else "</tool", again)
    for pieces in ([call], list(call)):
        answer = parse_answer(pieces, markup_of("", family))

        assert (answer.parsed(), answer.content) == ([("f", {"a": "1", "b": "x"})], "")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 300])
def test_tagged_argument_without_a_name_ends_the_call(name):
    call = TAGGED["qwen3-coder"].replace("parameter=a", f"parameter={name}").format("5")

    assert parse_answer([call], markup_of("", "qwen3-coder")).calls == [("f", "{}")]


@pytest.mark.parametrize(
    ("types", "written", "value"),
    [(["string", "integer"], "5", 5), (["string", "integer"], "5.5", "5.5"),
     (["string", "number"], "5", 5), (["string", "integer"], "5.0", 5),
     (["string", "array"], '["a"]', ["a"]), (["integer", "null"], "true", True)],
)  # fmt: skip
def test_tagged_value_keeps_a_type_that_its_schema_allows(types, written, value):
    tools = {"f": {"properties": {"a": {"type": types}}}}
    call = TAGGED["glm"].format(written)

    assert parse_answer([call], markup_of("", "glm"), tools=tools).parsed() == [("f", {"a": value})]


@pytest.mark.parametrize(
    ("template", "opening", "closing"),
    [
        ("</think>", "<think>", "</think>"),
        ("[THINK]", "[THINK]", "[/THINK]"),
        ("<|START_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>"),
        ("Here is my thought process: ", "Here is my thought process:", "Here is my response:"),
        ("<|channel>thought", "<|channel>thought", "<channel|>"),
    ],
)
def test_reasoning_is_separated_from_content(template, opening, closing):
    markup = markup_of(template, "hermes")
    answer = f"One.\n\nTwo <b>.\n{closing}\n\nHello.{TWO['hermes']}"

    spelled = parse_answer([f"{opening}\n{answer}"], markup)
    opened = parse_answer([answer], markup, is_thinking=True)

    assert spelled == opened
    assert spelled.reasoning == "One.\n\nTwo <b>."
    assert spelled.content == "Hello."
    assert spelled.parsed() == [ROME, PING]


def test_unended_reasoning_is_the_whole_answer():
    answer = parse_answer(["<think>Hmm, <tool_call>"], markup_of(THINKS, "hermes"))

    assert (answer.reasoning, answer.content) == ("Hmm, <tool_call>", "")


def test_reasoning_is_parsed_only_at_the_beginning():
    answer = parse_answer(["The tag <think> opens reasoning."], markup_of(THINKS, "hermes"))

    assert answer.content == "The tag <think> opens reasoning."


def test_harmony_channels_are_separated():
    text = (
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>commentary"
        "<|message|>I shall look.<|end|><|start|>assistant<|channel|>commentary "
        "to=functions.ping <|constrain|>json<|message|>{}<|call|>"
    )

    answer = parse_answer([text], markup_of("", "gpt-oss"))

    assert answer.reasoning == "Easy."
    assert answer.content == "I shall look."
    assert answer.parsed() == [PING]


def test_control_tokens_are_never_emitted():
    markup = markup_of("", "phi-4")
    hidden = frozenset(markup.markers)

    answer = parse_answer(["<|tool_call|>oops <|/tool_call|>!"], markup, hidden=hidden)

    assert answer.content == "oops !"


def test_leading_calls_are_parsed_only_at_the_beginning():
    markup = HERMES.without_variants(is_leading=True)
    quoted = '{"a": "<tool_call>{}</tool_call>"}'

    assert parse_answer([quoted], markup).content == quoted
    assert parse_answer([TWO["hermes"]], markup).parsed() == [ROME, PING]


def test_marks_around_the_answer_are_dropped():
    text = "<think>Well.</think>\n<response>Hello <b>.</response>"

    answer = parse_answer([text], markup_of("<think><response></think>", "granite"))

    assert (answer.reasoning, answer.content) == ("Well.", "Hello <b>.")
