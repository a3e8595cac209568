"""Tools that the client runs: functions, custom tools, namespaces; how calls of them are told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.generation.custom_input import CustomInput
from llm_backend.controllers.response_items.client_tools import client_tools
from llm_backend.controllers.response_items.items import messages_from, stored_form
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.responses.input.tools import chat_tools
from llm_backend.controllers.services.server_tools import OpenTools
from llm_backend.errors import InvalidRequest, UnsupportedField
from tests.response_events import HEAD, USAGE, check_events

RUN = {"type": "custom", "name": "run", "description": "Runs it."}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
NAMESPACE = {
    "type": "namespace", "name": "shop", "description": "A shop.", "tools": [FUNCTION, RUN],
}  # fmt: skip


def chats(*tools, **fields):
    return chat_tools({"tools": list(tools), **fields}, OpenTools({}, {}))


def told(tools, name, *pieces):
    state = ResponseState(HEAD, client_tools=chats(*tools).client_tools)
    calls = [ToolCall(index=0, id="call_1", name=name)]
    calls += [ToolCall(index=0, arguments=piece) for piece in pieces]
    events = state.start()
    for call in calls:
        events += state.add_delta(ChatDelta(choice=0, tool_calls=[call]))
    return [*events, *state.finish("tool_calls", USAGE, 2), state.end()], state


def test_a_custom_tool_is_a_function_of_one_text():
    function = chats(RUN).fields["tools"][0]["function"]

    assert (function["name"], function["description"]) == ("run", "Runs it.")
    assert function["parameters"]["properties"] == {"input": {"type": "string"}}
    assert function["strict"]


def test_its_regex_is_held_to_as_a_whole():
    form = {"type": "grammar", "syntax": "regex", "definition": "a|b"}
    function = chats({**RUN, "format": form}).fields["tools"][0]["function"]

    assert function["parameters"]["properties"]["input"]["pattern"] == "^(?:a|b)$"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({**RUN, "defer_loading": True}, "tools[0].defer_loading"),
        ({**FUNCTION, "allowed_callers": ["programmatic"]}, "tools[0].allowed_callers"),
        ({**NAMESPACE, "tools": [FUNCTION, {**RUN, "defer_loading": True}]},
         "tools[0].tools[1].defer_loading"),
        *(({"type": kind}, "tools[0].type") for kind in (
            "web_search", "web_search_preview", "code_interpreter", "image_generation", "computer",
            "computer_use_preview", "shell", "local_shell", "apply_patch", "tool_search",
            "programmatic_tool_calling",
        )),
    ],
)  # fmt: skip
def test_unsupported_client_tools_are_refused_by_name(tool, param):
    with pytest.raises(UnsupportedField) as refused:
        list(client_tools(tool, "tools[0]"))

    assert refused.value.param == param
    if param == "tools[0].type":
        assert tool["type"] in refused.value.message


def test_a_choice_means_a_custom_tool_or_one_of_a_namespace():
    chosen = chats(RUN, tool_choice={"type": "custom", "name": "run"}).fields["tool_choice"]
    look = {"type": "function", "name": "look", "namespace": "shop"}
    allowed = {
        "type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "run"}, look],
    }  # fmt: skip

    assert chosen == {"type": "function", "function": {"name": "run"}}
    assert chats(RUN, NAMESPACE, tool_choice=allowed).allowed_names == {"run", "shop__look"}


def test_a_custom_call_has_its_own_events():
    events, state = told([RUN], "run", '{"inp', 'ut": "l', "s \\", "n\\ud83d", '\\ude00"', "}")

    check_events(events)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", *["custom_tool_call_input.delta"] * 4,
        "custom_tool_call_input.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert "".join(event.get("delta", "") for event in events) == "ls \n😀"
    (item,) = state.output
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "run", "ls \n😀")


def test_a_call_in_a_namespace_has_its_name():
    events, state = told([NAMESPACE], "shop__look", "{}")

    check_events(events)
    assert (state.output[0]["name"], state.output[0]["namespace"]) == ("look", "shop")


def test_calls_of_client_tools_can_be_continued():
    call = stored_form({"type": "custom_tool_call", "call_id": "c1", "name": "run", "input": 'a"b'})
    output = stored_form({"type": "custom_tool_call_output", "call_id": "c1", "output": "done"})
    other = stored_form({"type": "function_call", "call_id": "c2", "name": "look",
                       "namespace": "shop", "arguments": "{}"})  # fmt: skip
    said, answered, looked = messages_from([], [call, output, other])

    function = said["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("run", {"input": 'a"b'})
    assert (answered["role"], answered["content"]) == ("tool", "done")
    assert looked["tool_calls"][0]["function"]["name"] == "shop__look"


@given(st.text(max_size=20), st.integers(1, 5), st.booleans())
def test_any_text_is_read_out_of_its_json_in_any_pieces(text, length, is_ascii):
    written = json.dumps({"input": text}, ensure_ascii=is_ascii)
    reader = CustomInput()
    pieces = [written[start : start + length] for start in range(0, len(written), length)]
    read = "".join(reader.feed(piece) for piece in pieces) + reader.finish()

    assert read == text


def test_arguments_of_a_custom_call_in_another_form_are_the_input():
    reader = CustomInput()

    assert reader.feed('{"other": 1}') + reader.finish() == '{"other": 1}'


def test_an_invalid_grammar_is_refused_by_path():
    form = {"type": "grammar", "syntax": "lark", "definition": "begin: /a/"}
    with pytest.raises(InvalidRequest, match="`start`") as refused:
        list(client_tools({**RUN, "format": form}, "tools[0]"))

    assert refused.value.param == "tools[0].format.definition"
