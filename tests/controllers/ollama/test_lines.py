"""Deltas of a chat as lines, which add up to the whole answer."""

from typing import Any

import pytest

from llm_backend.backends.base import ChatDelta, ToolCall, Usage
from llm_backend.controllers.ollama.lines import OllamaLines
from llm_backend.errors import UpstreamFailed

USAGE = Usage(prompt_tokens=10, completion_tokens=7, prompt_s=0.5, generation_s=0.25)
TEXT = [
    ChatDelta(choice=0, reasoning="hm"),
    ChatDelta(choice=0, content="Hel"),
    ChatDelta(choice=0, content="lo"),
]
CALLS = [
    ChatDelta(choice=0, tool_calls=[ToolCall(index=0, id="a", name="f", arguments='{"x": ')]),
    ChatDelta(choice=0, tool_calls=[ToolCall(index=0, arguments="1}")]),
    ChatDelta(choice=0, tool_calls=[ToolCall(index=1, id="b", name="g")]),
]


def answer_of(deltas: list[ChatDelta], **options: Any) -> tuple[list[Any], dict[str, Any]]:
    lines = OllamaLines("m", **{"is_chat": True, "shows_reasoning": True, **options})
    given = [*lines.begin(Usage())]
    for delta in deltas:
        given += lines.read(delta)
    return [*given, *lines.end(USAGE)], lines.whole()


def test_lines_add_up_to_the_answer_and_calls_come_whole() -> None:
    lines, whole = answer_of([*TEXT, *CALLS, ChatDelta(choice=0, finish_reason="tool_calls")])

    assert [line["message"].get("content") for line in lines] == ["", "Hel", "lo", "", "", ""]
    assert [line["done"] for line in lines] == [False] * 5 + [True]
    calls = [
        {"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "b", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert [line["message"].get("tool_calls") for line in lines[3:5]] == [[calls[0]], [calls[1]]]
    assert whole["message"] == {
        "role": "assistant", "content": "Hello", "thinking": "hm", "tool_calls": calls,
    }  # fmt: skip
    assert (whole["done_reason"], whole["prompt_eval_count"], whole["eval_count"]) == (
        "stop",
        10,
        7,
    )
    assert (whole["prompt_eval_duration"], whole["eval_duration"]) == (500_000_000, 250_000_000)


def test_durations_of_an_answer_whose_first_delta_is_its_last_are_not_zero() -> None:
    lines = OllamaLines("m", is_chat=True, shows_reasoning=True)
    [*lines.begin(Usage()), *lines.end(Usage(completion_tokens=2))]
    whole = lines.whole()

    assert whole["eval_count"] == 2
    assert min(whole["eval_duration"], whole["prompt_eval_duration"]) > 0


def test_generation_has_its_text_in_response_and_hides_reasoning_on_request() -> None:
    lines, whole = answer_of(TEXT, is_chat=False, shows_reasoning=False)

    assert [line["response"] for line in lines] == ["Hel", "lo", ""]
    assert whole["response"] == "Hello"
    assert "thinking" not in whole


def test_call_that_a_limit_cut_off_is_left_out_and_a_malformed_one_is_an_error() -> None:
    cut = [CALLS[0], ChatDelta(choice=0, finish_reason="length")]
    _, whole = answer_of(cut)

    assert whole["done_reason"] == "length"
    assert "tool_calls" not in whole["message"]
    with pytest.raises(UpstreamFailed, match="not a JSON object"):
        answer_of([CALLS[0], ChatDelta(choice=0, finish_reason="tool_calls")])
