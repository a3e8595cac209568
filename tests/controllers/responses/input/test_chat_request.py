"""A response's body becomes a chat's; mistakes keep the names that the client used."""

import pytest

from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.response_items.items import stored_form
from llm_backend.controllers.responses.input.chat_request import (
    chat_body,
    chat_messages,
    echoed_fields,
    translate_error_paths,
)
from llm_backend.controllers.responses.input.response_fields import check_response_fields
from llm_backend.controllers.responses.input.tools import chat_tools
from llm_backend.controllers.services.server_tools import OpenTools
from llm_backend.errors import ApiError, InvalidRequest

HELLO = [stored_form({"role": "user", "content": "Hello"})]
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def chat(items=HELLO, **fields):
    body = {"model": "m", **fields}
    check_response_fields(body)
    tools = chat_tools(body, OpenTools({}, {}))
    with translate_error_paths(tools.indices):
        chat = chat_body(body, chat_messages(body, [], items), tools.fields)
        return chat_from(chat, choices_limit=1)


def test_instructions_come_first():
    first, second = chat(instructions="Be kind.").messages

    assert (first["role"], first["content"]) == ("system", "Be kind.")
    assert second["content"] == "Hello"


def test_an_output_follows_its_call_although_a_message_is_between_them():
    call = stored_form({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"})
    output = stored_form({"type": "function_call_output", "call_id": "a", "output": "42"})

    assert [one["role"] for one in chat([call, *HELLO, output]).messages] == [
        "assistant", "tool", "user",
    ]  # fmt: skip


def test_data_about_the_client_are_accepted():
    assert chat(client_metadata={"x-codex-installation-id": "1"}).messages == chat().messages


def test_limits_and_samplers_have_the_same_meaning():
    asked = chat(max_output_tokens=7, temperature=0.5, top_p=0.9)

    assert asked.limits.max_tokens == 7
    assert (asked.sampling.temperature, asked.sampling.top_p) == (0.5, 0.9)


def test_tools_and_the_choice_of_one():
    asked = chat(tools=[TOOL], tool_choice={"type": "function", "name": "f"})

    assert asked.tools[0]["function"]["name"] == "f"
    assert asked.must_call


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
def test_a_choice_among_no_tools_is_refused(choice):
    with pytest.raises(InvalidRequest) as refused:
        chat(tool_choice=choice)

    assert refused.value.param == "tool_choice"


def test_logprobs_are_requested_by_number_or_by_include():
    assert chat(top_logprobs=2).sampling.logprobs == 2
    assert chat(include=["message.output_text.logprobs"]).sampling.logprobs == 0
    assert chat().sampling.logprobs is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode"),
        (
            {"prompt_cache_options": {"comparison_response_id": "resp_1"}},
            "prompt_cache_options.comparison_response_id",
        ),
        ({"max_tool_calls": -1}, "max_tool_calls"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "name": "no name"}]}, "tools[0].name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)  # fmt: skip
def test_unsupported_fields_are_refused_by_the_clients_name(fields, param):
    with pytest.raises(ApiError) as refused:
        chat(**fields)

    assert refused.value.status == 400
    assert refused.value.param == param


def test_there_must_be_something_to_answer():
    with pytest.raises(InvalidRequest) as refused:
        chat(items=[])

    assert refused.value.param == "input"


def test_a_response_echoes_the_request_with_defaults():
    told = echoed_fields({"model": "m", "tools": [TOOL], "temperature": None})

    assert told["temperature"] == 1.0
    assert told["tools"] == [{"description": None, "strict": False, **TOOL}]
    assert told["text"] == {"format": {"type": "text"}}


def test_a_response_has_the_field_store():
    assert echoed_fields({"model": "m", "store": True}, is_stored=False)["store"] is False


def test_fields_that_identify_the_client_are_echoed():
    told = echoed_fields(
        {"model": "m", "safety_identifier": "s", "prompt_cache_key": "k", "user": "u"}
    )

    assert (told["safety_identifier"], told["prompt_cache_key"], told["user"]) == ("s", "k", "u")
