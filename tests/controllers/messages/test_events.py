"""Deltas of a chat as events, which add up to the message."""

from typing import Any

import pytest

from llm_backend.backends.base import ChatDelta, ToolCall, Usage
from llm_backend.controllers.messages.events import MessageEvents, usage_of

USAGE = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=7)
DELTAS = [
    ChatDelta(choice=0, reasoning="h"),
    ChatDelta(choice=0, reasoning="m"),
    ChatDelta(choice=0, content="Hel"),
    ChatDelta(choice=0, content="lo"),
    ChatDelta(choice=0, tool_calls=[ToolCall(index=0, id="a", name="f")]),
    ChatDelta(choice=0, tool_calls=[ToolCall(index=0, arguments='{"x": ')]),
    ChatDelta(choice=0, tool_calls=[ToolCall(index=0, arguments="1}")]),
    ChatDelta(choice=0, tool_calls=[ToolCall(index=1, id="b", name="g", arguments="{}")]),
    ChatDelta(choice=0, finish_reason="tool_calls"),
]


def events_of(
    deltas: list[ChatDelta], *, shows_reasoning: bool = True
) -> tuple[list[Any], dict[str, Any]]:
    events = MessageEvents("m", shows_reasoning=shows_reasoning)
    given = [*events.begin(Usage(prompt_tokens=10))]
    for delta in deltas:
        given += events.read(delta)
    return [*given, *events.end(USAGE)], events.whole()


def block_events(events: list[Any]) -> list[tuple[int, str]]:
    """Index and kind of each event of a block."""
    kinds = [(event.get("index"), event["type"]) for event in events]
    return [
        (index, kind.removeprefix("content_block_"))
        for index, kind in kinds
        if kind.startswith("content_block_")
    ]


def assert_in_sequence(events: list[Any]) -> None:
    """Each block ends before the next begins, and no piece is outside its block."""
    open_index, begun = None, 0
    for index, kind in block_events(events):
        if kind == "start":
            assert (open_index, index) == (None, begun)
            open_index, begun = index, begun + 1
        else:
            assert index == open_index
            open_index = None if kind == "stop" else index
    assert open_index is None


def test_each_block_has_its_events_and_the_message_is_their_sum() -> None:
    events, message = events_of(DELTAS)

    kinds = [event["type"].removeprefix("content_block_") for event in events]
    assert kinds == [
        "message_start", "start", "delta", "delta", "stop", "start", "delta", "delta", "stop",
        "start", "delta", "delta", "stop", "start", "delta", "stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == [0, 1, 2, 3]
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
    ]
    usage = {"input_tokens": 6, "output_tokens": 7, "cache_read_input_tokens": 4}
    assert message["usage"] == {**usage, "cache_creation_input_tokens": 0}
    assert events[0]["message"]["content"] == []
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}


def test_input_tokens_are_never_negative() -> None:
    usage = usage_of(Usage(prompt_tokens=5, cached_tokens=9))  # some upstreams count them apart

    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (0, 9)


def test_reasoning_is_left_out_unless_it_is_shown() -> None:
    events, message = events_of(DELTAS[:4], shows_reasoning=False)

    assert [block["type"] for block in message["content"]] == ["text"]
    assert not any("thinking" in str(event) for event in events)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("abort", "end_turn"),
    ],
)
def test_stop_reasons_have_their_names_of_messages(reason: str, expected: str) -> None:
    _, message = events_of([ChatDelta(choice=0, content="a", finish_reason=reason)])

    assert message["stop_reason"] == expected


@pytest.mark.parametrize("reason", ["stop", "", None])
def test_answer_that_calls_a_tool_stops_for_it_with_any_finish_reason(
    reason: str | None,
) -> None:
    events, message = events_of([*DELTAS[4:7], ChatDelta(choice=0, finish_reason=reason)])

    assert message["stop_reason"] == events[-2]["delta"]["stop_reason"] == "tool_use"


def test_answer_without_a_finish_reason_ends_its_turn() -> None:
    events, message = events_of([ChatDelta(choice=0, content="a")])

    assert message["stop_reason"] == events[-2]["delta"]["stop_reason"] == "end_turn"


def test_pieces_of_two_calls_that_alternate_are_not_mixed() -> None:
    alternating = [DELTAS[4], DELTAS[5], DELTAS[7], DELTAS[6], DELTAS[8]]

    events, message = events_of(alternating)

    assert [block["input"] for block in message["content"]] == [{"x": 1}, {}]
    assert block_events(events) == [
        (0, "start"), (0, "delta"), (0, "delta"), (0, "stop"),
        (1, "start"), (1, "delta"), (1, "stop"),
    ]  # fmt: skip


def test_pieces_of_three_calls_and_a_text_come_in_the_order_of_their_begins() -> None:
    first, second, third = (ToolCall(index=at, id=f"c{at}", name="f") for at in range(3))
    calls = [
        first, second, third, ToolCall(index=2, arguments='{"z"'), ToolCall(index=1, arguments="{"),
        ToolCall(index=0, arguments='{"x": 1}'), ToolCall(index=2, arguments=": 3}"),
        ToolCall(index=1, arguments='"y": 2}'),
    ]  # fmt: skip
    deltas = [ChatDelta(choice=0, tool_calls=[call]) for call in calls]

    events, message = events_of([*deltas[:4], ChatDelta(choice=0, content="Hi"), *deltas[4:]])

    assert [block.get("input", block.get("text")) for block in message["content"]] == [
        {"x": 1}, {"y": 2}, {"z": 3}, "Hi",
    ]  # fmt: skip
    assert_in_sequence(events)


def test_call_behind_one_without_arguments_is_sent_at_the_end() -> None:
    calls = [ToolCall(index=0, id="a", name="f"), ToolCall(index=1, id="b", name="g")]

    events, message = events_of([ChatDelta(choice=0, tool_calls=[call]) for call in calls])

    assert [block["name"] for block in message["content"]] == ["f", "g"]
    assert block_events(events) == [(0, "start"), (0, "stop"), (1, "start"), (1, "stop")]


def test_input_of_a_call_that_a_limit_cut_off_is_empty() -> None:
    cut = [*DELTAS[4:6], ChatDelta(choice=0, finish_reason="length")]

    _, message = events_of(cut)

    assert message["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]
    assert message["stop_reason"] == "max_tokens"
