"""Bodies of messages as bodies of chats: each block, tool and option, and what is refused."""

from typing import Any

import pytest

from llm_backend.controllers.messages.chat_body import (
    budget_effort,
    chat_body_of,
    field_of,
    shows_thinking,
    thinks,
)
from llm_backend.controllers.messages.known_fields import check_fields
from llm_backend.errors import InvalidRequest, UnsupportedField

PIXEL = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def body_of(*messages: Any, **fields: Any) -> Any:
    return {"model": "m", "max_tokens": 5, "messages": list(messages), **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user", "content": "Hi"}, [{"role": "user", "content": "Hi"}]),
        (user(text("a"), {"type": "image", "source": PIXEL}),
         [{"role": "user", "content": [text("a"), IMAGE]}]),
        (user({"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}}),
         [{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}]}]),
        (user({"type": "document", "title": "T", "source": {
            "type": "text", "media_type": "text/plain", "data": "words"}}),
         [{"role": "user", "content": [text("T\n\nwords")]}]),
        (user({"type": "document", "source": {**PIXEL, "media_type": "application/pdf"}}),
         [{"role": "user", "content": [{"type": "file", "file": {
             "filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"}}]}]),
        (user(text("next"), {"type": "tool_result", "tool_use_id": "c", "content": [
            text("a"), {"type": "image", "source": PIXEL}]}),
         [{"role": "tool", "tool_call_id": "c", "content": "a"},
          {"role": "user", "content": [text("next"), IMAGE]}]),
        (user({"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True}),
         [{"role": "tool", "tool_call_id": "c", "content": "Error: no"}]),
        ({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""}, text("a"), text("b"),
            {"type": "redacted_thinking", "data": "x"},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"n": 9007199254740993}}]},
         [{"role": "assistant", "content": "ab", "reasoning_content": "hm", "tool_calls": [
             {"id": "c", "type": "function",
              "function": {"name": "f", "arguments": '{"n":9007199254740993}'}}]}]),
    ],
)  # fmt: skip
def test_blocks_become_messages_of_a_chat(message: Any, expected: Any) -> None:
    chat: Any = chat_body_of(body_of(message))

    assert chat["messages"] == expected


def test_long_id_of_a_user_is_hashed_to_the_length_that_openai_accepts() -> None:
    ids = ["u" * 64, '{"device_id":"%s","session_id":"1"}' % ("a" * 64), "b" * 65]
    short, long, other = (
        chat_body_of(body_of({"role": "user", "content": "Hi"}, metadata={"user_id": one}))["user"]
        for one in ids
    )

    assert short == ids[0]
    assert len(long) == len(other) == 64
    assert long != other


def test_tool_without_arguments_has_the_properties_that_openai_requires() -> None:
    schemas: list[Any] = [{"type": "object"}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}]
    tools = [{"name": f"f{index}", "input_schema": one} for index, one in enumerate(schemas)]
    chat = chat_body_of(body_of({"role": "user", "content": "Hi"}, tools=tools))

    parameters = [tool["function"]["parameters"] for tool in chat["tools"]]
    assert parameters == [{"type": "object", "properties": {}}, schemas[1]]


def test_options_have_their_names_of_chats() -> None:
    schema = {"type": "object", "properties": {}}
    given = body_of(
        {"role": "user", "content": "Hi"},
        system=[text("a"), text("b")], temperature=0.5, top_k=3, stop_sequences=["x"], stream=True,
        metadata={"user_id": "u"}, service_tier="auto", cache_control={"type": "ephemeral"},
        tools=[{"name": "f", "description": "d", "input_schema": schema, "strict": True}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": schema}},
        thinking={"type": "enabled", "budget_tokens": 1024},
    )  # fmt: skip

    assert chat_body_of(given) == {
        "model": "m", "temperature": 0.5, "top_k": 3, "stream": True, "max_completion_tokens": 5,
        "messages": [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "Hi"}],
        "stop": ["x"], "user": "u", "tool_choice": "required", "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {
            "name": "f", "parameters": schema, "description": "d", "strict": True}}],
        "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "output", "schema": schema, "strict": True}},
    }  # fmt: skip
    check_fields(given)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (None, (False, False)),
        ({"type": "disabled"}, (False, False)),
        ({"type": "adaptive"}, (True, True)),
        ({"type": "enabled", "budget_tokens": 1024, "display": "omitted"}, (True, False)),
    ],
)
def test_model_may_reason_unseen(thinking: Any, expected: tuple[bool, bool]) -> None:
    body = body_of({"role": "user", "content": "Hi"}, thinking=thinking)

    assert (thinks(body), shows_thinking(body)) == expected


@pytest.mark.parametrize(
    ("budget", "config", "effort"),
    [
        (1_024, None, "low"),
        (8_000, {}, "medium"),
        (32_000, {"effort": None}, "high"),
        (1_024, {"effort": "high"}, None),
        (None, None, None),
    ],
)
def test_budget_of_reasoning_is_an_effort_unless_one_is_named(
    budget: int | None, config: Any, effort: str | None
) -> None:
    thinking = {"type": "enabled"} | ({"budget_tokens": budget} if budget else {})
    body = body_of({"role": "user", "content": "Hi"}, thinking=thinking, output_config=config)

    assert budget_effort(body) == effort


def test_examples_of_a_tools_input_are_in_its_schema() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}, "input_examples": [{"city": "Rome"}]}
    chat: Any = chat_body_of(body_of({"role": "user", "content": "Hi"}, tools=[tool]))

    assert chat["tools"][0]["function"]["parameters"] == {
        "type": "object", "properties": {}, "examples": [{"city": "Rome"}],
    }  # fmt: skip


DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [user({**DOCUMENT, "citations": {"enabled": True}})]},
         "messages[0].content[0].citations"),
        ({"messages": [user({"type": "document", "source": {
            "type": "content", "content": [{**text("a"), "new": 1}]}})]},
         "messages[0].content[0].source.content[0].new"),
        ({"messages": [user({"type": "tool_result", "tool_use_id": "c", "content": [
            {"type": "image", "source": PIXEL, "transformations": {"a": "b"}}]})]},
         "messages[0].content[0].content[0].transformations"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "n"}]}, "messages[0].name"),
        ({"system": [{**text("a"), "new": 1}]}, "system[0].new"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "allowed_callers": ["code_execution_20260120"]}]},
         "tools[0].allowed_callers"),
        ({"tools": [{**TOOL, "new": 1}]}, "tools[0].new"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "new": 1}}, "tool_choice.new"),
        ({"output_config": {"task_budget": {"type": "tokens", "total": 9}}},
         "output_config.task_budget"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}, "name": "n"}}},
         "output_config.format.name"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024, "new": 1}}, "thinking.new"),
        ({"metadata": {"new": 1}}, "metadata.new"),
    ],
)  # fmt: skip
def test_unknown_fields_at_any_depth_are_refused_by_their_path(fields: Any, param: str) -> None:
    with pytest.raises(UnsupportedField) as refused:
        check_fields(body_of({"role": "user", "content": "Hi"}) | fields)

    assert refused.value.param == param
    assert param in str(refused.value)


def test_hints_and_neutral_values_at_any_depth_are_taken() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    check_fields(
        body_of(
            user({**DOCUMENT, **cached, "citations": {"enabled": False}}),
            {"role": "assistant", "content": [
                {**text("a"), "citations": [{"type": "page_location"}]},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}, "toolset_name": None,
                 "caller": {"type": "direct"}}]},
            tools=[{**TOOL, **cached, "eager_input_streaming": True, "defer_loading": False,
                    "allowed_callers": ["direct"]}],
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"container": "c"}, "container"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
         "messages[0].content[0].source"),
        ({"messages": [user(text("a"), {"type": "tool_use", "id": "c", "name": "f", "input": {}})]},
         "messages[0].content[1]"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image", "source": PIXEL}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "system", "content": [{"type": "image", "source": PIXEL}]}]},
         "messages[0].content[0]"),
    ],
)  # fmt: skip
def test_fields_without_a_counterpart_are_refused_by_their_path(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat_body_of(body_of({"role": "user", "content": "Hi"}) | fields)

    assert refused.value.param == param


@pytest.mark.parametrize("content", ["", []])
def test_empty_message_is_refused_unless_it_is_the_last_answer(content: Any) -> None:
    empty = {"role": "user", "content": content}
    with pytest.raises(InvalidRequest) as refused:
        chat_body_of(body_of({"role": "user", "content": "Hi"}, empty))
    chat: Any = chat_body_of(
        body_of({"role": "user", "content": "Hi"}, {"role": "assistant", "content": content})
    )

    assert refused.value.param == "messages[1].content"
    assert chat["messages"][0] == {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("messages[0].content", "system"),
        ("messages[1].content[1].image_url", "messages[0].content[1]"),
        ("messages[1]", "messages[0].content"),
        ("messages[3].content", "messages[2].content[0]"),
        ("messages[4].content[0].image_url.url", "messages[2].content[0]"),
        ("messages[4].content[1]", "messages[2].content[1]"),
        ("messages[9].content", "messages[9].content"),
        ("tools[1].function.parameters.type", "tools[1].input_schema.type"),
        ("tools[1].function.name", "tools[1].name"),
        ("max_completion_tokens", "max_tokens"),
        ("stop[1]", "stop_sequences[1]"),
    ],
)
def test_errors_name_the_fields_of_the_message(path: str, expected: str):
    image = {"type": "image", "source": PIXEL}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text("done"), image]}
    body = body_of(
        user(text("a"), image),
        {"role": "assistant", "content": [call]},
        user(result, text("b")),
        system="Be kind.",
    )

    assert field_of(body, path) == expected
