"""Tool calls are told from text, however the pieces fall."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.tool_calls import ParsedCall, ToolCallParser

WEATHER = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def parse(pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    parser = ToolCallParser()
    parts = [part for piece in pieces for part in parser.feed(piece)]
    parts += parser.finish()
    text = "".join(part for part in parts if isinstance(part, str))
    calls = [(part.name, part.arguments) for part in parts if isinstance(part, ParsedCall)]
    return text, calls


@given(st.lists(st.integers(0, 200), max_size=12))
def test_however_it_is_cut_the_parts_are_the_same(places):
    whole = f"Let me look.{WEATHER}\n{WEATHER} Done <tool"
    cuts = sorted({place for place in places if place < len(whole)} | {0, len(whole)})
    pieces = [whole[start:end] for start, end in itertools.pairwise(cuts)]

    text, calls = parse(pieces)

    assert text == "Let me look. Done <tool"
    assert calls == [("get_weather", '{"city":"Paris"}')] * 2


@given(st.text(alphabet="<tool_cal>/ab", max_size=60))
def test_text_without_a_call_comes_out_as_it_went_in(text):
    assert parse(list(text)) == (text, [])


def test_text_that_no_markup_can_claim_is_not_held():
    assert list(ToolCallParser().feed("Hello <b>")) == ["Hello <b>"]


def test_markup_that_is_no_call_stays_text():
    for inside in ("not json", "[1]", '{"name": 5}', '{"name": "f", "arguments": 1}',
                   '{"name": "f", "arguments": {"x": NaN}}',
                   '{"name": "f", "arguments": {"x": "\\ud800"}}'):  # fmt: skip
        markup = f"<tool_call>{inside}</tool_call>"
        assert parse([markup]) == (markup, [])


def test_a_call_that_lacks_its_closing_tag_counts():
    _, calls = parse(['<tool_call>{"name": "f"}'])

    assert calls == [("f", "{}")]


def test_every_call_has_an_id_of_its_own():
    parser = ToolCallParser()
    calls = [part for part in parser.feed(WEATHER * 2) if isinstance(part, ParsedCall)]

    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)
