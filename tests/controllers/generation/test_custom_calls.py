"""Custom tools of chats: what the model is asked, and what the client is told of its calls."""

import json
import time
from collections.abc import AsyncGenerator

import pytest

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.generation.custom_calls import (
    CustomCalls,
    custom_names,
    with_functions,
)
from llm_backend.controllers.generation.custom_input import CustomInput
from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.errors import InvalidRequest

USER = {"role": "user", "content": "Run it."}
LOOK = {"type": "function", "function": {"name": "look"}}


def custom(name: str = "run", **more: object) -> dict:
    return {"type": "custom", "custom": {"name": name, **more}}


def body(**fields: object) -> dict:
    return {"model": "m", "messages": [USER], **fields}


async def told(*calls: ToolCall, names: frozenset[str] = frozenset({"run"})) -> list[ChatDelta]:
    async def deltas() -> AsyncGenerator[ChatDelta, None]:
        for call in calls:
            yield ChatDelta(choice=0, tool_calls=[call])
        yield ChatDelta(choice=0, finish_reason="tool_calls")

    return [delta async for delta in CustomCalls(names).translate(deltas())]


def test_a_custom_tool_is_a_function_of_one_text():
    asked = body(tools=[LOOK, custom(description="Runs it.")], tool_choice=custom())
    chat = chat_from(asked, choices_limit=1)

    function = chat.tools[1]["function"]
    assert custom_names(asked) == {"run"}
    assert (function["name"], function["description"]) == ("run", "Runs it.")
    assert function["strict"]
    assert function["parameters"]["properties"] == {"input": {"type": "string"}}
    assert (chat.must_call, chat.callable_names) == (True, frozenset({"run"}))


def test_one_may_be_among_the_tools_that_are_allowed():
    allowed = {"mode": "required", "tools": [custom(), LOOK]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    chat = chat_from(
        body(tools=[LOOK, custom(), custom("stop")], tool_choice=choice), choices_limit=1
    )

    assert chat.callable_names == {"run", "look"}


def test_a_call_that_was_made_is_shown_to_the_model_as_one_of_the_function():
    call = {"id": "call_1", "type": "custom", "custom": {"name": "run", "input": 'say "hi"\n'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    asked = with_functions(body(messages=[USER, message]))

    (shown,) = asked["messages"][1]["tool_calls"]
    assert (shown["id"], shown["function"]["name"]) == ("call_1", "run")
    assert json.loads(shown["function"]["arguments"]) == {"input": 'say "hi"\n'}


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([LOOK, custom("no name")], "tools[1].custom.name"),
        ([custom(), custom()], "tools[1].custom.name"),
        ([custom("look"), LOOK], "tools[1].function.name"),
    ],
)
def test_errors_in_custom_tools_name_the_clients_fields(tools, param):
    with pytest.raises(InvalidRequest) as refused:
        chat_from(body(tools=tools), choices_limit=1)

    assert refused.value.param == param


async def test_the_input_of_a_custom_call_is_streamed():
    pieces = ['{"input', '": "a\\', "n", 'b"', "}"]
    begin = ToolCall(index=0, id="call_1", name="run")
    deltas = await told(begin, *(ToolCall(index=0, arguments=piece) for piece in pieces))

    calls = [call for delta in deltas for call in delta.tool_calls]
    assert all(call.is_custom for call in calls)
    assert (calls[0].id, calls[0].name) == ("call_1", "run")
    assert "".join(call.arguments for call in calls) == "a\nb"


async def test_calls_of_functions_pass_unchanged():
    calls = [ToolCall(index=0, id="call_1", name="look"), ToolCall(index=0, arguments="{}")]
    deltas = await told(*calls)

    assert [call for delta in deltas for call in delta.tool_calls] == calls


async def test_arguments_in_another_form_are_the_input():
    calls = [ToolCall(index=0, id="call_1", name="run"), ToolCall(index=0, arguments='{"x": 1}')]
    *_, last = await told(*calls)

    assert last.finish_reason == "tool_calls"
    assert [call.arguments for call in last.tool_calls] == ['{"x": 1}']


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\n\t\"\\\/", '\n\t"\\/'),
        (r"a\u00e9\ud83d\ude00z", "aé😀z"),
        (r"\d+\.\'", r"\d+\.\'"),  # no escapes
        (r"\uZZZZ \u12", r"\uZZZZ \u12"),
        (r"\ud83d", "\ufffd"),
        (r"\ud83d\n", "\ufffd\n"),
        (r"\ude00\ud83dx", "\ufffd\ufffdx"),
        ("", ""),
    ],
)
async def test_any_text_survives_in_the_input(written: str, meant: str, size: int):
    arguments = f'{{"input": "{written}"}}'
    pieces = [arguments[start : start + size] for start in range(0, len(arguments), size)]
    given = CustomInput()

    assert "".join(given.feed(piece) for piece in pieces) + given.finish() == meant


def test_empty_object_is_an_empty_input():
    given = CustomInput()

    assert given.feed("{}") + given.finish() == ""


def test_a_long_input_is_scanned_once():
    given = CustomInput()
    began_s = time.process_time()

    assert given.feed('{"input": "' + r"\n" * 200_000 + '"}') == "\n" * 200_000
    assert time.process_time() - began_s < 2  # half a minute, if the rest were copied at each
