"""Messages of refused bodies: field, code, and a sentence of bounded length."""

from typing import Any

import pytest

from llm_backend.contract.validation import Validators
from llm_backend.errors import InvalidRequest

HELLO = {"role": "user", "content": "Hello"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [HELLO], **fields}


def refusal(
    validators: Validators, body: Any, operation_id: str = "createChatCompletion"
) -> InvalidRequest:
    check = validators.body(operation_id)
    assert check is not None
    with pytest.raises(InvalidRequest) as raised:
        check.check_request(body)
    return raised.value


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ([], None, "invalid_type"),
        ({"messages": [HELLO]}, "model", "missing_required_parameter"),
        ({"model": "m"}, "messages", "missing_required_parameter"),
        (chat(messages=[]), "messages", "empty_array"),
        (chat(messages="Hello"), "messages", "invalid_type"),
        (chat(messages=[HELLO, 1]), "messages[1]", "invalid_type"),
        (
            chat(messages=[HELLO, {"role": "user"}]),
            "messages[1].content",
            "missing_required_parameter",
        ),
        (chat(messages=[{"role": "user", "content": 1}]), "messages[0].content", "invalid_type"),
        (chat(messages=[{"content": "Hello"}]), "messages[0].role", "missing_required_parameter"),
        (chat(messages=[{"role": "robot", "content": ""}]), "messages[0].role", "invalid_value"),
        (
            chat(messages=[{"role": "tool", "content": ""}]),
            "messages[0].tool_call_id",
            "missing_required_parameter",
        ),
        (
            chat(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            chat(messages=[{"role": "user", "content": [{"type": "smell"}]}]),
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            chat(messages=[{"role": "user", "content": [{"text": "Hi"}]}]),
            "messages[0].content[0].type",
            "missing_required_parameter",
        ),
        (
            chat(tool_choice={"function": {"name": "f"}}),
            "tool_choice.type",
            "missing_required_parameter",
        ),
        (
            chat(messages=[{"role": "assistant", "tool_calls": [{"id": "x"}]}]),
            "messages[0].tool_calls[0].type",
            "missing_required_parameter",
        ),
        (chat(n=0), "n", "integer_below_min_value"),
        (chat(n=129), "n", "integer_above_max_value"),
        (chat(n=1.5), "n", "invalid_type"),
        (chat(n=True), "n", "invalid_type"),
        (chat(temperature=2.5), "temperature", "decimal_above_max_value"),
        (chat(top_p=-0.5), "top_p", "decimal_below_min_value"),
        (chat(seed=2.0**63), "seed", "decimal_above_max_value"),
        (chat(stop=["a", "b", "c", "d", "e"]), "stop", "array_above_max_length"),
        (chat(tool_choice="perhaps"), "tool_choice", "invalid_value"),
        (chat(logit_bias={"1": "2"}), "logit_bias.1", "invalid_type"),
        (chat(metadata={"a": 1}), "metadata.a", "invalid_type"),
        (chat(metadata={"a": "b" * 513}), "metadata.a", "string_above_max_length"),
        (
            chat(metadata={str(n): "" for n in range(17)}),
            "metadata",
            "object_above_max_properties",
        ),
        (
            chat(tools=[{"type": "function", "function": {}}]),
            "tools[0].function.name",
            "missing_required_parameter",
        ),
        (chat(response_format={"type": "xml"}), "response_format.type", "invalid_value"),
    ],
)
def test_a_refused_chat_names_the_field(validators: Validators, body: Any, param: str, code: str):
    error = refusal(validators, body)

    assert (error.param, error.code) == (param, code)


def test_every_tag_that_would_fit_is_named(validators: Validators):
    error = refusal(validators, chat(messages=[{"role": "robot", "content": ""}]))

    assert error.message == (
        "Invalid value for 'messages[0].role': 'robot' is not supported. Supported: 'assistant', "
        "'developer', 'function', 'system', 'tool' or 'user'."
    )


def test_every_type_that_would_fit_is_named(validators: Validators):
    error = refusal(validators, chat(stop=5))

    assert error.message == (
        "Invalid type for 'stop': expected a string, null or an array, but got an integer instead."
    )


@pytest.mark.parametrize(
    "body",
    [
        chat(messages=[{"role": "x" * 100_000, "content": ""}]),
        chat(metadata={"x" * 100_000: ""}),
        chat(metadata={"x" * 100_000: 1}),
        chat(n=10**300),
        chat(tool_choice="x" * 100_000),
    ],
)
def test_messages_are_short_whatever_was_sent(validators: Validators, body: Any):
    error = refusal(validators, body)

    assert len(error.message) < 600
    assert len(error.param or "") < 300


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": None, "seed": None, "top_logprobs": None, "logit_bias": None, "temperature": None},
        {"stop": "a"},
        {"stop": ["a", "b"]},
        {"stream_options": {"include_usage": True}},
        {"metadata": None},
        {"vendor_field": {"any": "thing"}},
        {"seed": -(2**63)},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "Hello"}]}]},
        {"messages": [{"role": "assistant", "content": None, "refusal": None, "audio": None}]},
        {"messages": [{"role": "assistant", "content": "Hi", "tool_calls": None}]},
    ],
)
def test_valid_bodies_pass(validators: Validators, fields: Any):
    check = validators.body("createChatCompletion")
    assert check is not None

    check.check_request(chat(**fields))


def test_overlapping_alternatives_are_no_contradiction(validators: Validators):
    check = validators.body("createResponse")
    assert check is not None

    check.check_request({"model": "m", "input": [{"role": "user", "content": "Hello"}]})


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "summary": [], "encrypted_content": "x", "content": None},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ""}]},
        {"type": "local_shell_call", "call_id": "c", "status": "completed", "action": {}},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,"}]},
    ],
)
def test_items_may_be_sent_back_as_they_came(validators: Validators, item: Any):
    check = validators.body("createResponse")
    assert check is not None

    check.check_request({"model": "m", "input": [item]})


def test_an_unknown_tool_type_lists_the_known_ones(validators: Validators):
    body = {"model": "m", "input": "Hi", "tools": [{"type": "hammer"}]}

    error = refusal(validators, body, "createResponse")

    assert error.param == "tools[0].type"
    assert all(f"'{name}'" in error.message for name in ("function", "file_search"))


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"role": "robot", "content": "Hi"}, "role", "invalid_value"),
        ({"role": "user", "content": None}, "content", "invalid_type"),
        ({"role": "user"}, "content", "missing_required_parameter"),
        ({"type": "hammer"}, "type", "invalid_value"),
        ({"type": "message", "role": "robot", "content": "Hi"}, "role", "invalid_value"),
        ({"type": "message", "content": "Hi"}, "role", "missing_required_parameter"),
        ({"type": "function_call_output"}, "output", "missing_required_parameter"),
        (
            {"role": "user", "content": [{"text": "Hi"}]},
            "content[0].type",
            "missing_required_parameter",
        ),
        ({}, "type", "missing_required_parameter"),
    ],
)
def test_a_refused_item_names_the_field(validators: Validators, item: Any, param: str, code: str):
    error = refusal(validators, {"model": "m", "input": [item]}, "createResponse")

    assert (error.param, error.code) == (f"input[0].{param}", code)


def test_roles_of_all_kinds_of_messages_are_named(validators: Validators):
    body = {"model": "m", "input": [{"role": "tool", "content": "Hi"}]}

    message = refusal(validators, body, "createResponse").message

    assert message == (
        "Invalid value for 'input[0].role': 'tool' is not supported. Supported: "
        "'assistant', 'developer', 'system' or 'user'."
    )


@pytest.mark.parametrize(
    ("event", "param", "supported"),
    [
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "robot"}},
            "item.role",
            "'assistant', 'system' or 'user'",
        ),
        (
            {
                "type": "session.update",
                "session": {"type": "realtime", "max_output_tokens": "x"},
            },
            "session.max_output_tokens",
            "'inf' or an integer",
        ),
    ],
)
def test_a_refused_event_names_the_field_and_its_values(
    validators: Validators, event: Any, param: str, supported: str
):
    check = validators.component("RealtimeClientEvent")

    with pytest.raises(InvalidRequest) as raised:
        check.check_request(event)

    assert raised.value.param == param
    assert raised.value.message.endswith(f"Supported: {supported}.")


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "message", "content": []}, "item.role"),
        ({"role": "user", "content": []}, "item.type"),
        ({}, "item.type"),
    ],
)
def test_the_missing_tag_of_an_item_is_named(validators: Validators, item: Any, param: str):
    check = validators.component("RealtimeClientEvent")

    with pytest.raises(InvalidRequest) as raised:
        check.check_request({"type": "conversation.item.create", "item": item})

    assert (raised.value.param, raised.value.code) == (param, "missing_required_parameter")


def test_relayed_bodies_may_hold_unknown_fields(validators: Validators):
    check = validators.body("createResponse")
    assert check is not None

    check.check_request({"model": "m", "tools": [{"type": "web_search", "vendor_field": 1}]})


@pytest.mark.parametrize(
    ("input_", "param", "code"),
    [
        ([], "input", "empty_array"),
        (["a", 1], "input[1]", "invalid_type"),
        ([[1], ["a"]], "input[1][0]", "invalid_type"),
        ({}, "input", "invalid_type"),
    ],
)
def test_a_refused_embedding_names_the_field(
    validators: Validators, input_: Any, param: str, code: str
):
    error = refusal(validators, {"model": "m", "input": input_}, "createEmbedding")

    assert (error.param, error.code) == (param, code)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TURN = [HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "x"}]  # fmt: skip
STEP = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"}]  # fmt: skip


@pytest.mark.parametrize(
    ("operation_id", "body", "param"),
    [
        ("createChatCompletion", chat(messages=TURN * 500 + [{"role": "user", "content": 1}]),
         "messages[1500].content"),
        ("createChatCompletion", chat(messages=TURN * 500, n=0), "n"),
        ("createResponse",
         {"model": "m", "input": [*STEP * 500, {**STEP[0], "content": [{"type": "smell"}]}]},
         "input[1500].content[0].type"),
        ("createEmbedding", {"model": "m", "input": ["x"] * 2000 + [None]}, "input[2000]"),
    ],
)  # fmt: skip
def test_an_error_at_the_end_of_a_long_chat_is_named(validators, operation_id, body, param):
    assert refusal(validators, body, operation_id).param == param


def test_a_hostile_body_is_explained_within_a_budget(validators: Validators):
    many_parts = chat(messages=[{"role": "user", "content": [1] * 100_000}])
    late_failure = chat(messages=[*[HELLO] * 50_000, 1])

    assert refusal(validators, many_parts).param == "messages[0].content[0]"
    assert refusal(validators, late_failure).param is None
