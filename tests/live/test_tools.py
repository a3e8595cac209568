"""Tools, driven by the official client: what may be called is, what must be called too."""

import json
import re

import openai
import pytest

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
HELLO = [{"role": "user", "content": "Hello!"}]


def tool(name: str, *, strict: bool | None = None, **properties: object) -> dict:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function: dict[str, object] = {
        "name": name,
        "description": f"The {name}",
        "parameters": parameters,
    }
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", city={"type": "string", "maxLength": 24})
PAINT = tool("paint", strict=True, colour={"enum": ["red", "blue"]}, coats={"type": "integer",
             "minimum": 1, "maximum": 3})  # fmt: skip


def named(name: str) -> dict:
    return {"type": "function", "function": {"name": name}}


def streamed(client: openai.OpenAI, **fields: object) -> tuple[str, list[list[str]], str]:
    """Content, the pieces of each call's arguments, and why it ended."""
    content, calls, reason = "", [], ""
    with client.chat.completions.create(model="builtin", stream=True, **fields) as stream:
        for chunk in stream:
            choice = chunk.choices[0]
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or ():
                if call.id is not None:
                    assert call.index == len(calls)
                    calls.append([call.function.name])
                else:
                    assert call.function.name is None
                calls[call.index].append(call.function.arguments)
    return content, calls, reason


def test_a_custom_tools_input_is_a_text_that_follows_its_format(client):
    # two texts, so that no equally likely letters decide between the whole answer and the stream
    grammar = {"syntax": "regex", "definition": '(list|print) "08"\n'}
    custom = {"name": "run", "format": {"type": "grammar", "grammar": grammar}}
    asked = {
        "model": "builtin",
        "messages": HELLO,
        "tools": [WEATHER, {"type": "custom", "custom": custom}],
        "tool_choice": {"type": "custom", "custom": {"name": "run"}},
        "temperature": 0,
    }
    choice = client.chat.completions.create(**asked).choices[0]
    (call,) = choice.message.tool_calls
    with client.chat.completions.create(**asked, stream=True) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    pieces = [one.model_extra["custom"] for delta in deltas for one in delta.tool_calls or ()]
    messages = [
        *HELLO,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "It ran."},
    ]
    said = client.chat.completions.create(**{**asked, "messages": messages, "tool_choice": "none"})

    assert (choice.finish_reason, call.type, call.custom.name) == ("tool_calls", "custom", "run")
    assert re.fullmatch(grammar["definition"], call.custom.input)
    assert "".join(piece["input"] for piece in pieces) == call.custom.input
    assert said.choices[0].message.content


@pytest.mark.parametrize(
    ("syntax", "definition", "param"),
    [
        ("regex", "(", "tools[0].custom.format.grammar.definition"),
        ("lark", "start: /a/", "tools[0].custom.format.grammar.definition"),
    ],
)
def test_a_format_that_a_model_cannot_be_held_to_is_refused_by_its_place(
    client, syntax, definition, param
):
    grammar = {"syntax": syntax, "definition": definition}
    custom = {"name": "run", "format": {"type": "grammar", "grammar": grammar}}
    tool = {"type": "custom", "custom": custom}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="builtin", messages=HELLO, tools=[tool])

    assert refused.value.param == param


def test_a_call_that_is_required_is_made(client):
    for temperature in (0, 1.5):
        answer = client.chat.completions.create(
            model="builtin", messages=HELLO, tools=[WEATHER, PAINT], tool_choice="required",
            temperature=temperature, seed=3,
        )  # fmt: skip

        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        for call in choice.message.tool_calls:
            arguments = json.loads(call.function.arguments)
            assert (call.function.name, set(arguments)) in (
                ("get_weather", {"city"}),
                ("paint", {"colour", "coats"}),
            )


@pytest.mark.parametrize("streams", [False, True])
def test_the_function_that_is_named_is_called(client, streams):
    asked = {"messages": QUESTION, "tools": [WEATHER, PAINT], "tool_choice": named("paint"),
             "parallel_tool_calls": False, "temperature": 1.2, "seed": 5}  # fmt: skip
    if streams:
        _, [[name, *pieces]], reason = streamed(client, **asked)
        arguments = "".join(pieces)
    else:
        answer = client.chat.completions.create(model="builtin", **asked)
        [call] = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
        reason = answer.choices[0].finish_reason

    made = json.loads(arguments)
    assert (name, reason) == ("paint", "tool_calls")
    assert made["colour"] in ("red", "blue")
    assert made["coats"] in (1, 2, 3)


def test_only_what_is_allowed_is_called(client):
    allowed = {"mode": "required", "tools": [named("paint")]}
    answer = client.chat.completions.create(
        model="builtin", messages=QUESTION, tools=[WEATHER, PAINT], temperature=0,
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        parallel_tool_calls=False,
    )  # fmt: skip

    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["paint"]


def test_a_strict_tool_may_be_called_and_may_be_left_alone(client):
    strict = tool("get_weather", strict=True, city={"enum": ["Lyon", "Oslo"]})
    called, answered = (
        client.chat.completions.create(
            model="builtin", messages=messages, tools=[strict], temperature=0
        )
        for messages in (QUESTION, HELLO)
    )

    [call] = called.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Lyon", "Oslo")
    assert answered.choices[0].message.content
    assert answered.choices[0].finish_reason == "stop"


def test_a_streamed_call_is_the_whole_one(client):
    asked = {"messages": QUESTION, "tools": [WEATHER], "temperature": 0}
    content, calls, reason = streamed(client, **asked)
    whole = client.chat.completions.create(model="builtin", **asked).choices[0]

    [[name, *pieces]] = calls
    [call] = whole.message.tool_calls
    assert (name, "".join(pieces)) == (call.function.name, call.function.arguments)
    assert (content or None, reason) == (whole.message.content, whole.finish_reason)


def test_a_call_is_stored_as_it_was_answered(client):
    answer = client.chat.completions.create(
        model="builtin", messages=QUESTION, tools=[WEATHER], temperature=0
    )

    stored = client.chat.completions.retrieve(answer.id)
    assert stored.choices[0].message.tool_calls == answer.choices[0].message.tool_calls
    assert stored.choices[0].finish_reason == "tool_calls"


def test_fields_of_tools_that_cannot_be_honoured_are_refused_by_name(client):
    for fields, param in (
        ({"tool_choice": named("unknown"), "tools": [WEATHER]}, "tool_choice"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"tools": [WEATHER, tool("f", strict=True, x={"type": "string", "format": "regex"})]},
         "tools[1].function.parameters.properties.x.format"),
        ({"tools": [tool("f", strict=True, x={"enum": [9007199254740993]})]},
         "tools[0].function.parameters.properties.x.enum[0]"),
        ({"tools": [tool("f", strict=True, x={"type": "string", "minLength": 2, "maxLength": 1})]},
         "tools[0].function.parameters.properties.x.maxLength"),
        ({"tools": [tool("f", x={"type": "strin"})], "tool_choice": "required"},
         "tools[0].function.parameters.properties.x.type"),
        ({"extra_body": {"chat_template_kwargs": {"messages": []}}},
         "chat_template_kwargs.messages"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="builtin", messages=HELLO, **fields)
        assert caught.value.param == param


def test_switches_of_the_template_are_passed_on(client):
    answer = client.chat.completions.create(
        model="builtin", messages=HELLO, max_tokens=4, reasoning_effort="none",
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )  # fmt: skip

    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_an_answer_is_a_call_or_follows_the_response_format(client):
    asked = {"model": "builtin", "tools": [WEATHER], "temperature": 0,
             "response_format": {"type": "json_schema", "json_schema": {"name": "mood", "schema": {
                 "type": "object", "properties": {"mood": {"enum": ["good", "bad"]}},
                 "required": ["mood"], "additionalProperties": False}}}}  # fmt: skip
    called = client.chat.completions.create(messages=QUESTION, **asked).choices[0]
    told = client.chat.completions.create(messages=HELLO, **asked).choices[0]

    assert called.message.tool_calls or json.loads(called.message.content)["mood"]
    assert told.message.tool_calls or json.loads(told.message.content)["mood"]
    assert called.finish_reason in ("tool_calls", "stop")


def function(of: dict) -> dict:
    """A tool in the deprecated form."""
    return {name: value for name, value in of["function"].items() if name != "strict"}


@pytest.mark.parametrize("choice", [{"name": "paint"}, None])
def test_deprecated_functions_are_called_and_answered_in_their_own_form(exact_client, choice):
    chosen = {} if choice is None else {"function_call": choice}
    asked = {"model": "builtin", "messages": QUESTION, "functions": [function(WEATHER),
             function(PAINT)], "temperature": 0, **chosen}  # fmt: skip
    whole = exact_client.chat.completions.create(**asked).choices[0]
    with exact_client.chat.completions.create(**asked, stream=True) as stream:
        choices = [chunk.choices[0] for chunk in stream]
    call = whole.message.function_call
    pieces = [one.delta.function_call for one in choices if one.delta.function_call]
    output = {"role": "function", "name": call.name, "content": "done"}
    messages = [*QUESTION, whole.message.model_dump(exclude_none=True), output]
    said = exact_client.chat.completions.create(**{**asked, "messages": messages}, max_tokens=8)

    assert call.name == ("paint" if choice else "get_weather")
    assert json.loads(call.arguments)
    assert (whole.message.content, whole.message.tool_calls) == (None, None)
    assert (whole.finish_reason, choices[-1].finish_reason) == ("function_call", "function_call")
    assert (choices[0].delta.role, choices[0].delta.content) == ("assistant", None)
    assert [piece.name for piece in pieces if piece.name] == [call.name]
    assert "".join(piece.arguments for piece in pieces) == call.arguments
    assert said.choices[0].finish_reason in ("length", "stop")


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize(("tools", "content"), [([WEATHER], None), ([], "")])
def test_the_first_chunk_of_a_call_has_no_content(client, tools, content, logprobs):
    asked = {"tools": tools, "tool_choice": "required"} if tools else {}
    asked |= {"logprobs": logprobs}
    chat = {"model": "builtin", "messages": QUESTION, "stream": True, "n": 2, **asked}
    with client.chat.completions.create(**chat) as stream:
        chunks = list(stream)
    firsts = [
        next(chunk for chunk in chunks if chunk.choices[0].index == index) for index in (0, 1)
    ]

    assert [chunk.choices[0].delta.content for chunk in firsts] == [content, content]
    assert [chunk.choices[0].delta.role for chunk in firsts] == ["assistant", "assistant"]
    assert all("content" in chunk.choices[0].delta.to_dict() for chunk in firsts)


def test_a_call_without_its_output_is_refused_and_so_is_an_output_without_its_call(client):
    call = {"id": "call_1", "type": "function", "function": {"name": "paint", "arguments": "{}"}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    output = {"role": "tool", "tool_call_id": "call_2", "content": "done"}
    for messages, param in (
        ([*HELLO, calling, *HELLO], "messages[1].tool_calls"),
        ([*HELLO, output], "messages[1].role"),
        ([*HELLO, calling, output], "messages[2].tool_call_id"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="builtin", messages=messages)

        assert refused.value.param == param


LONG_NAME = tool("continue_with_the_weather_report_of_tomorrow", city={"type": "string"})


@pytest.mark.parametrize("limit", [1, 3, 6, 12])
def test_a_call_cut_before_its_name_is_whole_is_no_content(client, limit):
    asked = {"messages": QUESTION, "tools": [LONG_NAME], "tool_choice": "required"}
    whole = client.chat.completions.create(model="builtin", max_tokens=limit, **asked).choices[0]

    assert (whole.message.content or "", whole.finish_reason) == ("", "length")
    assert not whole.message.tool_calls
    assert streamed(client, max_tokens=limit, **asked) == ("", [], "length")


def test_a_response_cut_in_a_calls_name_is_incomplete_and_empty(client):
    function = {"type": "function", **LONG_NAME["function"]}
    asked = {"input": QUESTION, "tools": [function], "tool_choice": "required"}
    with client.responses.create(
        model="builtin", max_output_tokens=16, stream=True, **asked
    ) as stream:
        events = list(stream)

    response = events[-1].response
    assert events[-1].type == "response.incomplete"
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert response.output_text == ""
    assert not any(event.type == "response.output_text.delta" for event in events)
