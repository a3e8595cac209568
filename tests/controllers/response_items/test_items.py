"""Items: what clients send in short is kept in full, and becomes messages that a model can read."""

import pytest

from llm_backend.controllers.response_items.items import messages_from, public_form, stored_form
from llm_backend.errors import InvalidRequest

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OTHER_CALL = {**CALL, "call_id": "c2"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
ANSWER = {"role": "assistant", "content": "Yes."}
QUESTION = {"role": "user", "content": "Really?"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [],
           "content": [{"type": "reasoning_text", "text": "hm"}]}  # fmt: skip


def messages(*given):
    return messages_from([], [stored_form(one) for one in given])


def test_a_short_message_is_stored_in_full():
    item = stored_form(QUESTION)

    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Really?"}],
    }


def test_texts_of_the_assistant_are_output_text():
    (part,) = stored_form(ANSWER)["content"]

    assert part == {"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": []}


def test_a_given_id_is_stored_and_null_is_ignored():
    assert stored_form({**CALL, "id": "fc_mine"})["id"] == "fc_mine"
    assert stored_form({**CALL, "id": None})["id"].startswith("fc_")


def test_calls_and_the_text_before_them_are_one_message():
    said, _ = messages(ANSWER, CALL, OTHER_CALL, OUTPUT)

    assert said["content"] == "Yes."
    assert [call["id"] for call in said["tool_calls"]] == ["c1", "c2"]


def test_text_before_a_call_of_a_servers_tool_is_kept():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]}
    search = {"type": "file_search_call", "queries": ["q"]}
    items = [stored_form(one) for one in (ANSWER, search)]

    (said,) = messages_from([], items, {"file_search_call": lambda _item: [call]})

    assert said == {"role": "assistant", "content": "Yes.", "tool_calls": [{"id": "c1"}]}


def test_reasoning_joins_the_message_after_it():
    (message,) = messages(THOUGHT, ANSWER)

    assert message == {"role": "assistant", "reasoning_content": "hm", "content": "Yes."}


def test_two_answers_in_a_row_stay_two():
    assert [message["content"] for message in messages(ANSWER, ANSWER)] == ["Yes.", "Yes."]


def test_the_output_of_a_call_is_the_tools_message():
    assert messages(OUTPUT) == [{"role": "tool", "tool_call_id": "c1", "content": "42"}]


def test_parts_of_an_output_are_joined():
    parts = [{"type": "input_text", "text": "4"}, {"type": "input_text", "text": "2"}]

    assert messages({**OUTPUT, "output": parts})[0]["content"] == "4\n2"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, "input[1].type"),
        (
            {"role": "user", "content": [{"type": "computer_screenshot", "image_url": "data:,"}]},
            "input[1].content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "detail": "auto"}]},
            "input[1].content[0]",
        ),
    ],
)
def test_unreadable_items_are_refused_by_path(item, param):
    with pytest.raises(InvalidRequest) as refused:
        messages(QUESTION, item)

    assert refused.value.param == param


def test_results_are_public_only_if_included():
    item = {"type": "file_search_call", "results": [1]}

    assert public_form(item)["results"] is None
    assert public_form(item, ["file_search_call.results"])["results"] == [1]


def test_paths_are_those_of_the_requests_input():
    image = {"type": "input_image", "image_url": "data:,", "detail": "low"}
    said = {"role": "user", "content": [{"type": "input_text", "text": "See?"}, image]}
    before = [stored_form(QUESTION), stored_form(ANSWER)]

    (*_, message) = messages_from(before, [stored_form(said)])

    assert message["content"] == [
        {"type": "text", "text": "See?"},
        {
            "type": "image_url",
            "image_url": {"url": "data:,", "detail": "low"},
            "where": "input[0].content[1]",
        },
    ]


def test_reasoning_is_returned_as_opaque_content_if_included():
    shown = public_form(THOUGHT, ["reasoning.encrypted_content"])
    carried = {name: value for name, value in shown.items() if name != "content"}

    assert "encrypted_content" not in public_form(THOUGHT)
    assert messages_from([], [carried]) == messages_from([], [THOUGHT])


def test_encrypted_reasoning_of_an_upstream_is_returned_if_included():
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "zzz"}

    assert public_form(item, ["reasoning.encrypted_content"])["encrypted_content"] == "zzz"
    assert "encrypted_content" not in public_form(item)


@pytest.mark.parametrize("foreign", ["gAAAAB", "llmb1.?", ""])
def test_opaque_content_of_another_server_is_empty(foreign):
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": foreign}
    (message,) = messages_from([], [item])

    assert message["reasoning_content"] == ""


def test_an_interrupted_call_without_an_output_is_not_read():
    cut = {**CALL, "arguments": '{"a', "status": "incomplete"}

    assert messages(ANSWER, cut) == [{"role": "assistant", "content": "Yes."}]
    assert [message["role"] for message in messages(cut, OUTPUT)] == ["assistant", "tool"]
