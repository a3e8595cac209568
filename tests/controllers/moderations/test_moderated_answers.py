"""Chats and responses whose input and output are judged: told with the answer, or held back."""

from types import SimpleNamespace

import pytest

from llm_backend.backends.base import Chat, ChatDelta, GenerationLimits
from llm_backend.controllers.moderations.moderated_answers import WithheldStream, moderation_of
from llm_backend.errors import (
    ContextLengthExceeded,
    ModelNotFound,
    ServiceUnavailable,
    UnsupportedField,
)
from tests.controllers.moderations.test_operations import Judge
from tests.controllers.responses.scripted import Answer, Model, saying
from tests.controllers.responses.turns import Memory, events, services, turn
from tests.response_events import check_events

HARM = "hate"  # what the judge finds where a text has the word


def asked(input="score", output="score", model="judge"):
    return {"model": model, "policy": {"input": {"mode": input}, "output": {"mode": output}}}


def of(judge, says="Hello", **modes):
    """The moderation of an answer to this message of a user."""
    body = {"model": "m", "moderation": asked(**modes)}
    messages = [{"role": "system", "content": HARM}, {"role": "user", "content": says}]
    return moderation_of(services(Model(), Memory(), judge=judge), body, lambda: messages, None)


async def stream(*texts):
    for text in texts:
        yield ChatDelta(choice=0, content=text)
    yield ChatDelta(choice=0, finish_reason="stop")


async def filter_deltas(moderation, *texts):
    return [delta async for delta in moderation.filter_deltas(stream(*texts))]


def flags(told):
    return told["input"]["flagged"], told["output"]["flagged"]


@pytest.mark.parametrize(
    ("says", "answer", "flagged"),
    [
        ("Hello", "Hi.", (False, False)),
        (HARM, "No.", (True, False)),
        ("Hello", HARM, (False, True)),
    ],
)
async def test_moderation_scores_are_reported_without_changing_the_answer(says, answer, flagged):
    moderation = of(Judge(), says)
    is_blocked = await moderation.blocks_answer()
    deltas = await filter_deltas(moderation, answer)
    told = await moderation.report(results_in_lists=False)

    assert not is_blocked
    assert deltas[0].content == answer
    assert flags(told) == flagged
    assert told["input"]["type"] == "moderation_result"
    assert told["input"]["model"] == "judge"


async def test_flagged_inputs_are_not_answered_if_the_policy_blocks():
    moderation = of(Judge(), HARM, input="block")
    is_blocked = await moderation.blocks_answer()
    told = await moderation.report(results_in_lists=False)

    assert is_blocked
    assert told["input"]["flagged"]
    assert told["output"]["code"] == "no_output"


async def test_an_output_is_held_back_until_it_is_judged():
    moderation = of(Judge(), output="block")
    good = await filter_deltas(moderation, "All ", "is well.")
    bad = await filter_deltas(of(Judge(), output="block"), "I ", HARM)

    assert "".join(delta.content for delta in good) == "All is well."
    assert [(delta.content, delta.finish_reason) for delta in bad] == [("", "content_filter")]


async def test_each_choice_is_judged_for_itself():
    moderation = of(Judge(), output="block")

    async def choices():
        for choice, text in enumerate(["fine", HARM]):
            yield ChatDelta(choice=choice, content=text)
            yield ChatDelta(choice=choice, finish_reason="stop")

    deltas = [delta async for delta in moderation.filter_deltas(choices())]
    told = await moderation.report(results_in_lists=True)

    assert {delta.choice: delta.finish_reason for delta in deltas} == {
        0: "stop", 1: "content_filter",
    }  # fmt: skip
    assert [result["flagged"] for result in told["output"]["results"]] == [False, True]
    assert told["output"]["type"] == "moderation_results"


async def test_a_failed_moderation_is_reported_unless_the_policy_blocks():
    moderation = of(Judge(ContextLengthExceeded("It is too long.")))
    deltas = await filter_deltas(moderation, "Hi.")
    told = await moderation.report(results_in_lists=False)

    assert deltas[0].content == "Hi."
    assert told["input"] == told["output"] == {
        "type": "error", "code": "context_length_exceeded", "message": "It is too long.",
    }  # fmt: skip


@pytest.mark.parametrize(
    "passing",
    [lambda it: it.blocks_answer(), lambda it: filter_deltas(it, "Hi.")],
    ids=["input", "output"],
)
async def test_a_failed_moderation_fails_the_request_if_the_policy_blocks(passing):
    moderation = of(Judge(ServiceUnavailable("Later.")), input="block", output="block")

    with pytest.raises(ServiceUnavailable) as refused:
        await passing(moderation)

    assert refused.value.param == "moderation"


async def test_images_are_judged_by_models_with_vision():
    judge = Judge(accepts_images=True)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    said = [{"role": "user", "content": [{"type": "text", "text": "Look"}, image]}]
    body = {"model": "m", "moderation": {"model": "judge"}}
    told = await moderation_of(
        services(Model(), Memory(), judge=judge), body, lambda: said, None
    ).report(results_in_lists=False)  # fmt: skip

    assert told["input"]["category_applied_input_types"]["violence"] == ["text", "image"]


def test_without_a_model_that_judges_it_is_refused():
    def nobody(name):
        raise ModelNotFound(name)

    given = services(Model(), Memory())
    given.registry = SimpleNamespace(is_own_name=lambda name: False, for_model=nobody)
    for name, code in (
        ("omni-moderation-latest", "unsupported_parameter"),
        ("unknown", "model_not_found"),
    ):
        with pytest.raises(UnsupportedField) as refused:
            moderation_of(given, {"model": "m", "moderation": {"model": name}}, list, None)

        assert (refused.value.param, refused.value.code) == ("moderation.model", code)


def test_a_judge_of_an_upstream_is_refused():
    given = services(Model(), Memory(), judge=None)
    with pytest.raises(UnsupportedField, match="upstream"):
        moderation_of(given, {"model": "m", "moderation": {"model": "judge"}}, list, None)


def test_openais_names_mean_the_configured_model():
    given = services(Model(), Memory(), judge=Judge(), moderation_model="judge")
    body = {"model": "m", "moderation": {"model": "omni-moderation-latest"}}

    assert moderation_of(given, body, list, None).judge.card.id == "judge"


async def test_withheld_choices_have_no_content():
    chat = Chat(messages=[], limits=GenerationLimits(choices=2))
    deltas = [delta async for delta in WithheldStream().chat_deltas(chat)]

    assert [(delta.choice, delta.finish_reason) for delta in deltas] == [
        (0, "content_filter"), (1, "content_filter"),
    ]  # fmt: skip


async def response(model, says, **modes):
    memory = Memory()
    given = services(model, memory, judge=Judge())
    begun = await turn(given, model, input=says, stream=True, moderation=asked(**modes))
    told = await events(begun)
    check_events(told)
    assert memory.kept[-1]["moderation"] == told[-1]["response"]["moderation"]
    return told


async def test_a_response_reports_its_moderation():
    told = await response(Model(saying(HARM)), "Hello")

    last = told[-1]["response"]
    assert last["status"] == "completed"
    assert flags(last["moderation"]) == (False, True)


async def test_a_response_to_a_flagged_input_runs_no_model():
    model = Model()
    told = await response(model, HARM, input="block")

    last = told[-1]["response"]
    assert model.asked == []
    assert last["output"] == []
    assert last["incomplete_details"] == {"reason": "content_filter"}


async def test_a_flagged_response_has_no_output():
    model = Model(
        Answer(ChatDelta(choice=0, content=HARM), ChatDelta(choice=0, finish_reason="stop"))
    )
    told = await response(model, "Hello", output="block")

    assert not any("delta" in event for event in told)
    assert told[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}
