"""Truncation drops the oldest items that do not fit, if the client asks for it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.generation.structured_output import StructuredOutput
from llm_backend.controllers.response_items.items import stored_form
from llm_backend.controllers.responses.input.chat_request import chat_messages
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.responses.input.truncation import between_calls, truncate
from llm_backend.controllers.services.server_tools import OpenTools
from tests.controllers.responses.scripted import Model


def said(role, text):
    return stored_form({"role": role, "content": text})


def call(name):
    return stored_form({"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"})


def output(name, text):
    return stored_form({"type": "function_call_output", "call_id": name, "output": text})


def question(items, truncation="auto", max_tokens=10):
    body = {"model": "m", "truncation": truncation}
    chat = chat_from({"model": "m", "messages": chat_messages(body, items, [])}, choices_limit=1)
    limits = dataclasses.replace(chat.limits, max_tokens=max_tokens)
    return ResolvedRequest(
        body=body, leading_messages=[], context_items=items, input_items=[], items=items,
        structure=StructuredOutput(),
        allowed_names=None, meter=None,
        client_tools={},
        chat=dataclasses.replace(chat, limits=limits), tools=OpenTools({}, {}),
    )  # fmt: skip


def model(context_tokens):
    one = Model()
    one.context_tokens = context_tokens
    return one


TURNS = [said(role, "x" * 20) for role in ("user", "assistant") * 3] + [said("user", "y" * 20)]


async def test_a_fitting_request_is_not_truncated():
    asked = question(TURNS)

    assert await truncate(model(1000), asked) is asked


async def test_truncation_drops_whole_turns_from_the_oldest():
    fitted = await truncate(model(111), question(TURNS))

    assert fitted.truncated_items == 2
    assert [one["role"] for one in (await fitted.chat_after(())).messages] == [
        "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip


async def test_instructions_at_the_beginning_are_not_truncated():
    rules = [said("system", "Be kind."), said("developer", "Be brief.")]
    fitted = await truncate(model(111), question([*rules, *TURNS]))

    assert fitted.truncated_items == 4
    assert [one["content"] for one in (await fitted.chat_after(())).messages] == [
        "Be kind.", "Be brief.", "x" * 20, "x" * 20, "y" * 20,
    ]  # fmt: skip


async def test_nothing_is_truncated_by_default():
    asked = question(TURNS, truncation="disabled")

    assert (await truncate(model(50), asked)).truncated_items == 0


async def test_truncation_reserves_tokens_for_the_answer():
    few = await truncate(model(130), question(TURNS, max_tokens=10))
    many = await truncate(model(130), question(TURNS, max_tokens=1000))

    assert few.truncated_items < many.truncated_items


async def test_a_long_turn_is_cut_between_its_calls():
    items = [said("user", "x" * 50)]
    for number in range(4):
        items += [call(str(number)), output(str(number), "z" * 20)]
    fitted = await truncate(model(60), question(items))

    first, *_ = (await fitted.chat_after(())).messages
    assert first["role"] == "assistant"
    assert fitted.truncated_items % 2 == 1


async def test_a_message_between_a_call_and_its_output_begins_no_cut():
    items = [said("user", "x" * 50), call("a"), said("user", "y"), output("a", "z")]
    fitted = await truncate(model(40), question(items))

    assert fitted.truncated_items == 1


REQUEST = {"type": "mcp_approval_request", "id": "mcpr_1"}
MCP_CALL = {"type": "mcp_call", "id": "mcp_1", "approval_request_id": "mcpr_1"}


def approval(approve):
    return {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": approve}


@pytest.mark.parametrize(
    ("rest", "cuts"),
    [
        ([approval(True), TURNS[0], MCP_CALL, TURNS[0]], [1, 5]),
        ([approval(True), TURNS[0]], [1]),
        ([approval(False), TURNS[0]], [1, 3]),
        ([TURNS[0]], [1, 2]),
    ],
    ids=["called", "approved", "refused", "unanswered"],
)
def test_cuts_separate_no_call_from_its_approval(rest, cuts):
    assert between_calls([TURNS[0], REQUEST, *rest]) == cuts


@pytest.mark.parametrize(
    ("context_count", "truncated", "path"),
    [(0, 0, "input[2]"), (1, 0, "input[1]"), (1, 1, "input[1]"), (0, 1, "input")],
)
async def test_paths_in_the_input_outlast_a_new_chat(context_count, truncated, path):
    image = {"type": "input_image", "image_url": "data:,", "detail": "auto"}
    items = [said("user", "x"), said("user", "y"), said("user", [image])]
    asked = dataclasses.replace(
        question(items[:2]), items=items, context_items=items[:context_count],
        truncated_items=truncated,
    )  # fmt: skip

    (shown,) = (await asked.chat_after(())).messages[-1]["content"]
    assert shown.param == f"{path}.content[0].image_url"


async def test_a_request_that_cannot_fit_is_unchanged():
    fitted = await truncate(model(10), question(TURNS))

    assert fitted.truncated_items == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
async def test_truncation_separates_no_output_from_its_call(steps):
    items, open_calls = [said("user", "x" * 9)], []
    for number, (length, is_output) in enumerate(steps):
        if is_output and open_calls:
            items.append(output(open_calls.pop(0), "z" * length * 9))
        else:
            open_calls.append(str(number))
            items.append(call(str(number)))
    fitted = await truncate(model(30), question(items))

    kept = items[fitted.truncated_items :]
    calls = {item["call_id"] for item in kept if item["type"] == "function_call"}
    if fitted.truncated_items:
        assert all(
            item["call_id"] in calls for item in kept if item["type"] == "function_call_output"
        )


@pytest.mark.parametrize("truncation", [None, "disabled"])
async def test_the_default_is_to_refuse(truncation):
    asked = question(TURNS, truncation=truncation)

    assert await truncate(model(10), asked) is asked
