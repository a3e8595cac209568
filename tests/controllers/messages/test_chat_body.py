"""Bodies of messages as bodies of chats: each block, tool and option, and what is refused."""

from typing import Any

import pytest

from llm_backend.controllers.messages.chat_body import chat_body_of, thinks
from llm_backend.errors import InvalidRequest

PIXEL = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


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
         [{"role": "user", "content": [text("a"), PICTURE]}]),
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
          {"role": "user", "content": [text("next"), PICTURE]}]),
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
    assert thinks(given)
    assert not thinks({**given, "thinking": {"type": "adaptive", "display": "omitted"}})


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
