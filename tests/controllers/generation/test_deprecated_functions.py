"""The deprecated functions of chats: tools to the model, a `function_call` to the client."""

from collections.abc import AsyncGenerator

import pytest

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.generation.deprecated_functions import (
    as_function_calls,
    translate_function_errors,
    with_tools,
)
from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.chat_fold import fold
from llm_backend.errors import InvalidRequest

USER = {"role": "user", "content": "Look."}
LOOK = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
HEAD = chunks.ChunkHead(id="c", kind="chat.completion.chunk", created_at=1, model="m")


def body(**fields: object) -> dict:
    return {"model": "m", "messages": [USER], **fields}


def chat(asked: dict):
    with translate_function_errors(asked):
        return chat_from(with_tools(asked), choices_limit=1)


async def told(*deltas: ChatDelta) -> list[ChatDelta]:
    async def given() -> AsyncGenerator[ChatDelta, None]:
        for delta in deltas:
            yield delta

    return [delta async for delta in as_function_calls(given())]


@pytest.mark.parametrize(
    ("choice", "tools", "must_call", "names"),
    [
        (None, 2, False, None),
        ("auto", 2, False, None),
        ("none", 0, False, None),
        ({"name": "run"}, 2, True, {"run"}),
    ],
)
def test_functions_are_tools_of_which_one_is_called_at_most(choice, tools, must_call, names):
    asked = chat(body(functions=[LOOK, {"name": "run"}], function_call=choice))

    assert len(asked.tools) == tools
    assert (asked.must_call, asked.callable_names) == (must_call, names)
    assert tools == 0 or asked.tools[0] == {"type": "function", "function": LOOK}
    assert not asked.parallel_tool_calls


def test_a_chat_without_functions_is_as_it_came():
    asked = body(tools=[{"type": "function", "function": LOOK}])

    assert with_tools(asked) is asked


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [LOOK], "tools": [{"type": "function", "function": LOOK}]}, "functions"),
        ({"functions": [LOOK], "tool_choice": "auto"}, "tool_choice"),
        ({"functions": [LOOK], "parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [LOOK], "function_call": {"name": "run"}}, "function_call.name"),
        ({"functions": [LOOK, LOOK]}, "functions[1].name"),
        ({"functions": [{"name": "no name"}]}, "functions[0].name"),
        ({"functions": [{"name": "f", "parameters": {"type": "array"}}]},
         "functions[0].parameters.type"),
    ],
)  # fmt: skip
def test_errors_in_functions_name_the_clients_fields(fields, param):
    with pytest.raises(InvalidRequest) as refused:
        chat(body(**fields))

    assert refused.value.param == param


async def test_a_call_has_the_deprecated_form():
    begun = ToolCall(index=0, id="call_1", name="look", arguments='{"a"')
    deltas = await told(
        ChatDelta(choice=0, tool_calls=[begun]),
        ChatDelta(choice=0, tool_calls=[ToolCall(index=0, arguments=": 1}")]),
        ChatDelta(choice=0, tool_calls=[ToolCall(index=1, id="call_2", name="look")]),
        ChatDelta(choice=0, finish_reason="tool_calls"),
    )
    sent = [chunks.chat_chunk(HEAD, delta) for delta in deltas]
    (choice,) = fold(sent)["choices"]

    assert [chunk["choices"][0]["delta"] for chunk in sent] == [
        {"function_call": {"name": "look", "arguments": '{"a"'}},
        {"function_call": {"arguments": ": 1}"}},
        {},
    ]
    assert choice["message"]["function_call"] == {"name": "look", "arguments": '{"a": 1}'}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"


async def test_deltas_without_calls_pass_unchanged():
    deltas = [ChatDelta(choice=0, content="Hi"), ChatDelta(choice=0, finish_reason="stop")]

    assert await told(*deltas) == deltas
