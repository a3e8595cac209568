"""Reasoning is summarized by the model itself, if the client asks for it."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from llm_backend.backends.base import ChatDelta, ModelCard, ToolCall
from llm_backend.backends.local.admitted_generation import AdmittedGeneration
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.engine import EngineClient
from llm_backend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedField
from tests.controllers.responses.scripted import Answer, Model, saying
from tests.controllers.responses.turns import Memory, events, services, turn
from tests.engine.conftest import config
from tests.engine.gguf_models import write_llama
from tests.response_events import check_events

CALL = ToolCall(index=0, id="call_1", name="f", arguments="{}")
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}


def thinking(*after):
    return Answer(
        ChatDelta(choice=0, reasoning="Two and "), ChatDelta(choice=0, reasoning="two."),
        *after, ChatDelta(choice=0, finish_reason="stop"),
    )  # fmt: skip


FOUR = ChatDelta(choice=0, content="4")


async def estimate_bytes():
    return 1


async def told(model, summary="concise", **fields):
    begun = await turn(
        services(model, Memory()), model, reasoning={"summary": summary}, stream=True, **fields
    )
    found = await events(begun)
    check_events(found)
    return found


@pytest.mark.parametrize("summary", ["concise", "detailed"])
async def test_a_reasoning_summary_comes_before_the_answer(summary):
    model = Model(thinking(FOUR), saying("I added."))
    found = await told(model, summary)

    thought, said = found[-1]["response"]["output"]
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert thought["summary"] == [{"type": "summary_text", "text": "I added."}]
    assert thought["content"][0]["text"] == "Two and two."
    assert said["content"][0]["text"] == "4"
    assert kinds.index("reasoning_summary_text.done") < kinds.index("output_text.delta")
    assert found[-1]["response"]["reasoning"]["summary"] == summary


async def test_the_model_is_shown_its_thoughts_and_not_to_think_again():
    model = Model(thinking(FOUR), saying("I added."))
    await told(model)

    summing = model.asked[1]
    assert "Two and two." in summing.messages[0]["content"]
    assert summing.reasoning_effort == "none"


async def test_summaries_are_counted_and_take_nothing_from_the_answers_limit():
    model = Model(thinking(FOUR), saying("I added."))
    found = await told(model, max_output_tokens=16)

    assert found[-1]["response"]["usage"]["output_tokens"] == 10


@pytest.mark.parametrize("summary", ["auto", None])
async def test_reasoning_is_not_summarized_by_default(summary):
    model = Model(thinking(FOUR))
    found = await told(model, summary)

    assert found[-1]["response"]["output"][0]["summary"] == []
    assert len(model.asked) == 1


async def test_a_model_without_reasoning_makes_no_summary():
    model = Model(saying("4"))
    await told(model)

    assert len(model.asked) == 1


async def test_reasoning_before_a_call_is_summarized():
    model = Model(thinking(ChatDelta(choice=0, tool_calls=[CALL])), saying("I look."))
    found = await told(model, tools=[TOOL])

    thought, call = found[-1]["response"]["output"]
    assert thought["summary"][0]["text"] == "I look."
    assert call["type"] == "function_call"


async def test_one_delta_may_end_a_thought_and_begin_the_answer():
    model = Model(thinking(ChatDelta(choice=0, reasoning=" So", content="4")), saying("I added."))
    found = await told(model)

    thought, said = found[-1]["response"]["output"]
    assert thought["content"][0]["text"] == "Two and two. So"
    assert said["content"][0]["text"] == "4"


async def test_reasoning_too_long_for_a_summary_is_sent_without():
    model = Model(thinking(FOUR), ContextLengthExceeded("It is too long."))
    found = await told(model)

    assert found[-1]["response"]["status"] == "completed"
    assert found[-1]["response"]["output"][0]["summary"] == []


async def test_a_model_that_always_thinks_is_refused_before_it_begins():
    class Thinker(Model):
        async def count_prompt_tokens(self, chat):
            if chat.reasoning_effort == "none":
                raise InvalidRequest("This model always reasons.", param="reasoning_effort")
            return 1

    with pytest.raises(UnsupportedField) as refused:
        await told(Thinker())

    assert refused.value.param == "reasoning.summary"


async def test_summary_does_not_wait_while_the_model_of_its_answer_is_unloaded(
    tmp_path, monkeypatch
):
    """The unload waits for the answer, and the answer for the summary."""
    path, unloads = write_llama(tmp_path / "tiny.gguf"), []
    chat_deltas = AdmittedGeneration.chat_deltas

    async def reason(answer, request):
        is_summary = request.reasoning_effort == "none"
        if not is_summary:
            unloads.append(asyncio.create_task(handle.unload()))
        async with aclosing(chat_deltas(answer, request)) as deltas:
            async for delta in deltas:
                yield delta if is_summary else replace(delta, reasoning=delta.content, content="")

    monkeypatch.setattr(AdmittedGeneration, "chat_deltas", reason)
    async with LocalModelManager() as manager:
        handle = manager.add_model("a", lambda _: EngineClient(config(path)), estimate_bytes)
        model = LocalModel(ModelCard(id="a", created_at=1, owned_by="test"), handle)
        async with asyncio.timeout(20):
            found = await told(model, max_output_tokens=16)
            await asyncio.gather(*unloads)
    assert found[-1]["response"]["output"][0]["summary"][0]["text"]
