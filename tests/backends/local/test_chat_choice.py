"""Chat choices: deltas of the engine as reasoning, content, numbered calls and token counts."""

import pytest

from llm_backend.backends.base import ChatDelta
from llm_backend.backends.local.chat_choice import ChatChoice
from llm_backend.backends.local.markup import MarkupParser, markup_of
from llm_backend.engine.messages import Delta, FinishReason

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def choice(*, is_parallel: bool = True, is_thinking: bool = False) -> ChatChoice:
    parser = MarkupParser(markup_of("</think>", "hermes"), {"f": {}}, is_thinking=is_thinking)
    return ChatChoice(0, parser, is_parallel=is_parallel)


def convert_all(
    one: ChatChoice, pieces: list[str], reason: FinishReason | None, size: int = 1
) -> list[ChatDelta]:
    converted: list[ChatDelta] = []
    for place, text in enumerate(pieces, 1):
        last = place == len(pieces)
        delta = Delta(
            id="1", index=0, text=text, completion_tokens=place * size,
            finish_reason=reason if last else None,
        )  # fmt: skip
        converted += one.convert(delta)
    return converted


def test_calls_are_numbered_and_only_their_begin_has_an_id():
    made = convert_all(choice(), list(CALL * 2), FinishReason.STOP)

    calls = [call for delta in made for call in delta.tool_calls]
    begun = [call for call in calls if call.id is not None]
    assert [(call.index, call.name) for call in begun] == [(0, "f"), (1, "f")]
    assert len({call.id for call in begun}) == 2
    assert all(call.name is None for call in calls if call.id is None)
    for index in (0, 1):
        whole = "".join(call.arguments for call in calls if call.index == index)
        assert whole == '{"a": 1}'
    assert made[-1].finish_reason == "tool_calls"


def test_choice_without_parallel_calls_ends_after_one_call():
    one = choice(is_parallel=False)
    made = convert_all(one, ["Hm. " + CALL[:-13], CALL, "never read"], FinishReason.LENGTH)

    assert one.is_finished
    assert [call.index for delta in made for call in delta.tool_calls] == [0]
    assert made[-1].finish_reason == "tool_calls"


def test_truncated_choice_finishes_with_length_even_after_a_call():
    made = convert_all(choice(), [CALL, CALL[: CALL.index("1")]], FinishReason.LENGTH)

    assert made[-1].finish_reason == "length"
    assert made[-2].tool_calls[-1].arguments == '{"a":'


@pytest.mark.parametrize(
    ("reason", "stop", "shown"), [("length", None, "length"), ("stop", "get", "stop")]
)
def test_call_truncated_before_its_name_is_not_content(reason, stop, shown):
    one = choice()
    end = Delta(
        id="1", index=0, text='{"name": "', completion_tokens=3,
        finish_reason=FinishReason(reason), stop_sequence=stop,
    )  # fmt: skip
    made = [*convert_all(one, ["<tool_call>", "\n"], None), *one.convert(end)]

    assert [delta.content for delta in made if delta.content] == []
    assert [call for delta in made for call in delta.tool_calls] == []
    assert made[-1].finish_reason == shown


def test_reasoning_tokens_are_counted_by_delta():
    one = choice()
    convert_all(one, ["<think>", "a", "b", "</", "think>", "\n\n", "Hi", "!"], FinishReason.STOP)

    assert one.reasoning_tokens == 5


def test_tokens_of_one_delta_are_divided_by_length():
    one = choice(is_thinking=True)
    convert_all(one, ["abc", "def</think>ghi"], FinishReason.STOP, size=10)

    assert one.reasoning_tokens == 15


def test_stop_string_of_the_client_is_reported_and_one_of_the_chat_format_is_not():
    def stopped_by(stop: str) -> ChatDelta:
        one = ChatChoice(0, None, is_parallel=True, stops=("END",))
        end = Delta(
            id="1", index=0, text="", completion_tokens=1, finish_reason=FinishReason.STOP,
            stop_sequence=stop,
        )  # fmt: skip
        return list(one.convert(end))[-1]

    assert stopped_by("END").stop_sequence == "END"
    assert stopped_by("<|end|>").stop_sequence is None
