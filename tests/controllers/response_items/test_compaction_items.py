"""A conversation that has grown long is summed up before it is answered, and gone on from."""

import pytest

from llm_backend.backends.base import ChatDelta
from llm_backend.controllers.response_items.compaction_items import (
    Compaction,
    compaction_item,
    parse_compaction,
    reading_order,
)
from llm_backend.controllers.response_items.encrypted_content import encode_opaque
from llm_backend.controllers.response_items.items import messages_from, stored_form
from llm_backend.controllers.responses.input.context_management import COMPACTION_PROMPT
from llm_backend.errors import UnsupportedField, UnusableAnswer
from tests.controllers.responses.scripted import Answer, Model, saying
from tests.controllers.responses.turns import Memory, events, services, turn
from tests.response_events import check_events

AT_100 = [{"type": "compaction", "compact_threshold": 100}]
SUMMARY = "They like owls."


def said(role, text):
    return stored_form({"role": role, "content": text})


def call(name):
    return stored_form({"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"})


def output(name, text):
    return stored_form({"type": "function_call_output", "call_id": name, "output": text})


def silent():
    return Answer(ChatDelta(choice=0, finish_reason="stop"))


LONG = [said("user", "x" * 60), said("assistant", "y" * 60)]


async def answered(model, memory, **fields):
    fields = {"context_management": AT_100, **fields}
    return await (await turn(services(model, memory), model, **fields)).response()


def shown(chat):
    return [(one["role"], one["content"]) for one in chat.messages]


async def test_a_long_conversation_is_compacted_and_the_question_kept():
    model = Model(saying(SUMMARY), saying("Owls."))
    response = await answered(model, Memory(LONG))

    summing, answering = model.asked
    assert [item["type"] for item in response["output"]] == ["compaction", "message"]
    assert summing.messages[-1] == {"role": "user", "content": COMPACTION_PROMPT}
    assert len(summing.messages) == 4
    assert shown(answering) == [
        ("user", "What was said before, in short?"), ("assistant", SUMMARY), ("user", "Now?"),
    ]  # fmt: skip


async def test_later_responses_continue_from_the_summary():
    model, memory = Model(saying(SUMMARY), saying("Owls."), saying("Yes.")), Memory(LONG)
    await answered(model, memory)
    response = await answered(model, memory, input="Sure?")

    assert [item["type"] for item in response["output"]] == ["message"]
    assert shown(model.asked[-1])[1:] == [
        ("assistant", SUMMARY), ("user", "Now?"), ("assistant", "Owls."), ("user", "Sure?"),
    ]  # fmt: skip


async def test_a_client_that_sends_all_items_continues_from_the_summary():
    model = Model(saying(SUMMARY), saying("Owls."), saying("Yes."))
    sent = [*LONG, said("user", "Now?")]
    first = await answered(model, Memory(), input=sent)
    await answered(model, Memory(), input=[*sent, *first["output"], said("user", "Sure?")])

    assert [role for role, _ in shown(model.asked[-1])] == [
        "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip


async def test_a_client_may_omit_compacted_items():
    model = Model(saying(SUMMARY), saying("Owls."), saying("Yes."))
    first = await answered(model, Memory(LONG))
    await answered(model, Memory(), input=[*first["output"], said("user", "Sure?")])

    assert shown(model.asked[-1])[1:] == [
        ("assistant", SUMMARY), ("assistant", "Owls."), ("user", "Sure?"),
    ]  # fmt: skip


async def test_a_short_conversation_is_not_compacted():
    model = Model(saying("Owls."))
    response = await answered(model, Memory(LONG[:1]))

    assert [item["type"] for item in response["output"]] == ["message"]
    assert len(model.asked) == 1


@pytest.mark.parametrize("entry", [{}, {"compact_threshold": None}, {"compact_threshold": 10_000}])
async def test_a_conversation_that_nearly_fills_the_context_is_summed_up_in_any_case(entry):
    model = Model(saying(SUMMARY), saying("Owls."))
    management = [{"type": "compaction", **entry}]
    full = [said("user", "x" * 400), said("assistant", "y" * 400)]
    response = await answered(model, Memory(full), context_management=management)

    assert response["output"][0]["type"] == "compaction"


async def test_one_long_question_is_nothing_to_sum_up():
    model = Model(saying("Owls."))
    response = await answered(model, Memory(), input="x" * 300)

    assert [item["type"] for item in response["output"]] == ["message"]


async def test_a_summary_is_not_summed_up_again_as_long_as_nothing_is_new():
    model = Model(saying(SUMMARY * 10), saying("Owls."), saying("Yes."))
    memory = Memory(LONG)
    first = await answered(model, memory)
    memory.said.pop()  # the answer: what is asked is still what was kept
    await answered(model, memory, input=[said("user", "Now!")])

    assert first["output"][0]["type"] == "compaction"
    assert len(model.asked) == 3


async def test_a_long_turn_is_cut_behind_its_calls():
    turns = [said("user", "x" * 60)]
    for number in range(4):
        turns += [call(str(number)), output(str(number), "z" * 20)]
    model, memory = Model(saying(SUMMARY), saying("Done.")), Memory(turns[:-1])
    await answered(model, memory, input=turns[-1:])

    summed_up, *kept = model.asked[-1].messages[1:]
    assert [call["id"] for call in summed_up["tool_calls"]] == ["3"]
    assert summed_up["content"] == SUMMARY
    assert [one["tool_call_id"] for one in kept] == ["3"]


async def test_a_call_is_kept_with_an_output_behind_the_question():
    model = Model(saying(SUMMARY), saying("Owls."))
    sent = [said("user", "Now?"), output("a", "z")]
    await answered(model, Memory([*LONG, call("a")]), input=sent)

    assert [message["role"] for message in model.asked[-1].messages[1:]] == [
        "assistant", "tool", "user",
    ]  # fmt: skip


async def test_messages_of_the_system_stay():
    rule = said("developer", "Be kind.")
    model = Model(saying(SUMMARY), saying("Owls."))
    await answered(model, Memory([rule, *LONG]))

    assert shown(model.asked[-1])[0] == ("system", "Be kind.")


async def test_a_stream_has_the_compaction_item_before_the_answer():
    model, memory = Model(saying(SUMMARY), saying("Owls.")), Memory(LONG)
    told = await events(
        await turn(services(model, memory), model, context_management=AT_100, stream=True)
    )

    check_events(told)
    assert parse_compaction(told[-1]["response"]["output"][0]) == Compaction(
        summary=SUMMARY, kept=1
    )


async def test_a_compaction_is_counted_outside_of_max_output_tokens():
    model = Model(saying(SUMMARY), saying("Owls."))
    response = await answered(model, Memory(LONG), max_output_tokens=16)

    assert response["usage"]["output_tokens"] == 10
    assert model.asked[1].limits.max_tokens == 16


async def test_a_compaction_has_no_tools_and_formats():
    model = Model(saying(SUMMARY), saying("{}"))
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    await answered(
        model, Memory(LONG), tools=[tool], tool_choice="required",
    )  # fmt: skip

    summing, answering = model.asked
    assert (list(summing.tools), summing.must_call) == ([], False)
    assert answering.must_call


async def test_an_empty_summary_is_an_error():
    with pytest.raises(UnusableAnswer, match="no summary"):
        await answered(Model(silent()), Memory(LONG))


async def test_another_way_to_manage_contexts_is_refused():
    with pytest.raises(UnsupportedField) as refused:
        await answered(Model(), Memory(), context_management=[{"type": "forgetting"}])

    assert refused.value.param == "context_management[0].type"


@pytest.mark.parametrize("content", ["llmbc1.e30=", "llmbc1.W10=", "llmbc1.eA==", "llmbc1.?"])
def test_malformed_compaction_content_is_refused(content):
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": content}

    assert parse_compaction(item) is None
    with pytest.raises(UnsupportedField):
        messages_from([], [item])


def test_a_summary_of_absent_items_keeps_the_order_of_the_rest():
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": encode_opaque("Owls.")}

    assert reading_order([*LONG, item]) == [0, 1, 2]


def test_the_latest_summary_counts():
    older = compaction_item(Compaction(summary="a", kept=1))
    newer = compaction_item(Compaction(summary="b", kept=2))
    items = [*LONG, older, said("user", "1"), said("assistant", "2"), said("user", "3"), newer]

    assert reading_order(items) == [6, 4, 5]
