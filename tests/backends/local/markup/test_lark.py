"""Text arguments that follow a client's Lark grammar."""

import time

import pytest

from llm_backend.backends.local.markup import FAMILIES
from llm_backend.backends.local.markup.family import ArgumentStyle
from llm_backend.backends.local.markup.grammar import Function
from llm_backend.backends.local.markup.lark import LARK, LarkError, check_lark
from llm_backend.backends.local.markup.parameters import check_strict, without_grammar_pattern
from llm_backend.controllers.generation.custom_tools import custom_function
from llm_backend.errors import UnsupportedField
from tests.backends.local.markup.reading import parse_answer
from tests.backends.local.markup.samples import CITY, ONE
from tests.backends.local.markup.test_grammar import Follower, each_spelling_of

GRAMMAR = r"""
start: "*** Begin" LF line{1,9} "*** End"  // a patch: }
line: ("+" | "-") /[^\n]*/ LF
%import common.LF
"""
PATCH = '*** Begin\n-say "hi"\n+say "\\t{ho}"\n*** End'
PARAMETERS = {
    **CITY,
    "properties": {**CITY["properties"], "city": {"type": "string", LARK: GRAMMAR}},
}
QUOTED = (ArgumentStyle.JSON, ArgumentStyle.KEYWORDS)
spellings = {name: family.calls.notation.arguments for name, family in FAMILIES.items()}


@each_spelling_of(name for name, kind in spellings.items() if kind not in QUOTED)
def test_lark_argument_is_enforced_and_parsed(family, has_tokens):
    function = Function(name="get_weather", parameters=PARAMETERS, is_strict=True)
    one = Follower(family, has_tokens=has_tokens)
    right = ONE[family].replace('Pa"ris', PATCH)

    assert one.follow(right, [function])
    assert not one.follow(right.replace("+say", "say"), [function])
    assert not one.follow(ONE[family], [function])
    called = parse_answer(
        [right], one.markup.without_variants(), tools={"get_weather": PARAMETERS}
    ).parsed()
    assert called == [("get_weather", {"city": PATCH, "days": 2})]


@pytest.mark.parametrize("family", ["hermes", "lfm2", "qwen3-coder", "glm", "gemma-4"])
def test_regex_of_a_custom_tool_is_enforced_by_every_family(family):
    grammar = {"syntax": "regex", "definition": 'ca[a-z]/"\\d"|b\n'}
    parameters = custom_function(grammar, "format")["parameters"]
    schema = {**CITY["properties"], "city": parameters["properties"]["input"]}
    function = Function(
        name="get_weather", parameters={**CITY, "properties": schema}, is_strict=True
    )
    check_strict(function.parameters, spellings[family], "tools[0]")
    written = 'Pa\\"ris' if '\\"' in ONE[family] else 'Pa"ris'
    right, wrong = (
        ONE[family].replace(written, text.replace('"', '\\"') if "\\" in written else text)
        for text in ('cab/"7"', 'cab/"x"')
    )

    assert Follower(family).follow(right, [function])
    assert not Follower(family).follow(wrong, [function])


@pytest.mark.parametrize("kind", QUOTED)
def test_lark_is_refused_where_calls_are_quoted(kind):
    with pytest.raises(UnsupportedField, match="Lark grammar") as refused:
        check_strict(PARAMETERS, kind, "tools[0].function.parameters")

    assert refused.value.param == "tools[0].function.parameters.properties.city.x-lark"


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('start: "a" }\nother: "b"', "braces"),
        ("start: /a/{2", "braces"),
        ('start: <[7]> "a"', "7"),
        ("start: @other", "@other"),
        ('start: %json {"type": "object"}', "%json"),
        ("begin: /a/", "`start`"),
    ],
)
def test_lark_directives_that_reach_outside_are_refused(grammar, message):
    with pytest.raises(LarkError, match=message):
        check_lark(grammar)


def test_usual_lark_grammar_is_valid():
    check_lark(GRAMMAR)
    check_lark('start: "}" /[{]/ # }\n %ignore /[ \\/]/\n')


@pytest.mark.parametrize("grammar", ["\n" * 100_000, '"' + r"\"" * 50_000, "/" + r"\/" * 50_000])
def test_lark_check_takes_linear_time(grammar):
    began_s = time.process_time()
    with pytest.raises(LarkError):
        check_lark(grammar)

    assert time.process_time() - began_s < 1  # a minute, from every place anew


def test_template_gets_a_custom_tools_regex_once():
    grammar = {"syntax": "regex", "definition": "a|b"}
    parameters = custom_function(grammar, "format")["parameters"]

    assert without_grammar_pattern(parameters)["properties"] == {
        "input": {"type": "string", "pattern": "^(?:a|b)$"}
    }
    assert without_grammar_pattern(PARAMETERS) == PARAMETERS
