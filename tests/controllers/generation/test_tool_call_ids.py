"""Calls and their outputs belong together: in chats one follows the other, in responses both are
there."""

import pytest

from llm_backend.controllers.generation.tool_call_ids import check_items, check_messages
from llm_backend.controllers.response_items.items import stored_form
from llm_backend.errors import InvalidRequest

USER = {"role": "user", "content": "Look."}


def calling(*ids: str) -> dict:
    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
             for id in ids]  # fmt: skip
    return {"role": "assistant", "content": None, "tool_calls": calls}


def output(id: str) -> dict:
    return {"role": "tool", "tool_call_id": id, "content": "1"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [USER, calling("a"), output("a")],
        [USER, calling("a", "b"), output("b"), output("a"), USER],
        [USER, calling("a"), output("a"), calling("a"), output("a")],
        [{"role": "assistant", "content": "x", "tool_calls": []}, USER],
        [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, USER],
        [{"role": "function", "name": "f", "content": "1"}],
    ],
)
def test_messages_whose_calls_are_answered_pass(messages):
    check_messages(messages)


@pytest.mark.parametrize(
    ("messages", "param", "named"),
    [
        ([USER, calling("a")], "messages[1].tool_calls", "a"),
        ([USER, calling("a", "b"), output("a"), USER], "messages[1].tool_calls", "b"),
        ([USER, calling("a"), USER, output("a")], "messages[1].tool_calls", "a"),
        ([USER, calling("a"), calling("b"), output("b")], "messages[1].tool_calls", "a"),
        ([USER, output("a")], "messages[1].role", "tool_calls"),
        ([USER, calling("a"), output("a"), USER, output("a")], "messages[4].role", "tool_calls"),
        ([USER, calling("a"), output("b"), output("a")], "messages[2].tool_call_id", "b"),
    ],
)
def test_a_call_without_its_output_or_the_other_way_round_is_refused(messages, param, named):
    with pytest.raises(InvalidRequest, match=f"`{named}`") as refused:
        check_messages(messages)

    assert refused.value.param == param


def item(kind: str, id: str, **more: object) -> dict:
    return stored_form({"type": kind, "call_id": id, **more})


CALL, CUSTOM = item("function_call", "a"), item("custom_tool_call", "b")
OUTPUT, CUSTOM_OUTPUT = item("function_call_output", "a"), item("custom_tool_call_output", "b")
SAID = stored_form(USER)
CUT = item("function_call", "a", status="incomplete")


REQUEST = stored_form({
    "type": "mcp_approval_request", "id": "d", "server_label": "a", "name": "x", "arguments": "",
})  # fmt: skip
REFUSAL = stored_form(
    {"type": "mcp_approval_response", "approval_request_id": "d", "approve": False}
)


@pytest.mark.parametrize(
    ("before", "own"),
    [
        ([], [SAID]),
        ([], [SAID, CALL, CUSTOM, CUSTOM_OUTPUT, OUTPUT]),
        ([SAID, CALL], [OUTPUT]),
        ([SAID, CALL], [SAID, OUTPUT]),
        ([SAID, CUT], [SAID]),
        ([SAID, CALL, OUTPUT], [SAID]),
        ([], [item("computer_call_output", "c")]),
        ([SAID, REQUEST], [REFUSAL]),
    ],
)
def test_items_whose_calls_are_answered_pass(before, own):
    check_items(before, own)


@pytest.mark.parametrize(
    ("before", "own", "message", "param"),
    [
        ([], [SAID, CALL], "No tool output found for function call a.", "input"),
        ([SAID, CALL], [SAID], "No tool output found for function call a.", "input"),
        ([SAID, CUSTOM], [SAID], "No tool output found for custom tool call b.", "input"),
        ([], [OUTPUT], "No tool call found for function call output with call_id a.", "input[0]"),
        ([SAID], [SAID, CUSTOM_OUTPUT],
         "No tool call found for custom tool call output with call_id b.", "input[1]"),
        ([], [OUTPUT, CALL], "No tool call found for function call output with call_id a.",
         "input[0]"),
        ([OUTPUT], [SAID], "No tool call found for function call output with call_id a.", "input"),
    ],
)  # fmt: skip
def test_an_item_without_the_other_is_refused(before, own, message, param):
    with pytest.raises(InvalidRequest) as refused:
        check_items(before, own)

    assert refused.value.message == message
    assert refused.value.param == param.replace("]", "].call_id")


@pytest.mark.parametrize("items", [[REFUSAL], [REFUSAL, REQUEST]])
def test_response_to_an_unknown_approval_request_is_refused(items):
    with pytest.raises(InvalidRequest) as refused:
        check_items([SAID], items)

    assert refused.value.message == "No approval request has the id `d`."
    assert refused.value.param == "input[0].approval_request_id"
