"""Clients of responses are served by upstreams of chats, and the other way round."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest

from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from llm_backend.controllers.relay.bridge.as_chat import SHOWN_LATER
from tests.gateway import backend, gateway
from tests.response_events import check_events
from tests.strict_sdk import StrictAsyncOpenAI
from tests.upstream import Connection, FakeUpstream, Message

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
VALIDATORS = Validators(load_document())
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
ITEM = {"type": "function_call", "call_id": "c1", "name": "weather"}
CALL = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": "{"}}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
AUDIO = [
    {
        "role": "user",
        "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}],
    }
]
NAMED = {"role": "user", "name": "Ann", "content": "Hi"}
TOLD = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}


def events(*said: dict[str, Any]) -> bytes:
    return HEAD + b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in said)


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "far",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}  # fmt: skip


def chat_says(*deltas: dict[str, Any], reason: str = "stop") -> bytes:
    last = {**chunk({}), "choices": [], "usage": USAGE}
    return events(*map(chunk, deltas), chunk({}, reason), last) + b"data: [DONE]\n\n"


def response_says(*said: dict[str, Any], status: str = "completed", **more: Any) -> bytes:
    last = {"type": f"response.{status}", "response": {"status": status, "usage": TOLD, **more}}
    return events({"type": "response.created"}, *said, last)


def text_events(*pieces: str) -> list[dict[str, Any]]:
    item = {"type": "message", "id": "msg_1"}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    return [added, *({"type": "response.output_text.delta", "delta": piece} for piece in pieces)]


@asynccontextmanager
async def client_of(
    tmp_path, fake: FakeUpstream, wire: str, name: str = "a", **more: Any
) -> AsyncIterator[openai.AsyncOpenAI]:
    settings = {"store_chats": "always", "response_validation": "enforce", **more}
    async with fake:
        backends = [backend(fake, name, wire=wire)]
        async with (
            gateway(
                tmp_path, backends=backends, allowed_hosts=("127.0.0.1",), **settings
            ) as served,
            StrictAsyncOpenAI(
                base_url=f"http://127.0.0.1:{served.port}/v1", api_key="k", max_retries=0
            ) as client,
        ):
            yield client


def sent_to(fake: FakeUpstream, operation_id: str) -> list[dict[str, Any]]:
    """The bodies that it got, which keep the document."""
    check = VALIDATORS.body(operation_id)
    assert check is not None
    bodies = [json.loads(request.body) for request in fake.requests]
    for body in bodies:
        check.check_request(body)
    return bodies


async def test_a_response_is_bridged_to_a_chat_and_continued(tmp_path):
    fake = FakeUpstream(
        answer=chat_says({"role": "assistant"}, {"content": "Hel"}, {"content": "lo"})
    )
    async with client_of(tmp_path, fake, "chat") as client:
        first = await client.responses.create(
            model="far", input="Hi", instructions="Be kind.", max_output_tokens=50, temperature=0.5
        )
        second = await client.responses.create(
            model="far", input="And?", previous_response_id=first.id
        )
        kept = await client.responses.retrieve(first.id)

    asked, again = sent_to(fake, "createChatCompletion")
    assert first.output_text == second.output_text == kept.output_text == "Hello"
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.output_tokens) == (5, 2)
    assert fake.requests[0].first_line == b"POST /v1/chat/completions HTTP/1.1"
    assert asked["messages"] == [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
    ]  # fmt: skip
    assert (asked["max_completion_tokens"], asked["temperature"]) == (50, 0.5)
    assert [message["content"] for message in again["messages"]] == ["Hi", "Hello", "And?"]


async def test_data_about_the_client_are_left_out_of_a_chat(tmp_path):
    fake = FakeUpstream(answer=chat_says({"content": "Hello"}))
    data = {"client_metadata": {"x-codex-installation-id": "1"}}
    async with client_of(tmp_path, fake, "chat") as client:
        await client.responses.create(model="far", input="Hi", extra_body=data)

    (asked,) = sent_to(fake, "createChatCompletion")
    assert "client_metadata" not in asked


async def test_an_answer_of_reasoning_alone_is_left_out_of_the_next_chat(tmp_path):
    fake = FakeUpstream(answer=chat_says({"reasoning_content": "Hm"}, reason="length"))
    async with client_of(tmp_path, fake, "chat") as client:
        first = await client.responses.create(model="far", input="Hi")
        await client.responses.create(model="far", input="And?", previous_response_id=first.id)

    _, again = sent_to(fake, "createChatCompletion")
    assert [item.type for item in first.output] == ["reasoning"]
    assert [message["content"] for message in again["messages"]] == ["Hi", "And?"]


async def test_a_prompt_of_the_settings_comes_before_the_input(tmp_path):
    guide = {"messages": [{"role": "system", "content": "You guide through {{city}}."}]}
    prompt = {"id": "pmpt_guide", "variables": {"city": "Oslo"}}
    fake = FakeUpstream(answer=chat_says({"role": "assistant"}, {"content": "Hello"}))
    async with client_of(tmp_path, fake, "chat", prompts={"pmpt_guide": guide}) as client:
        said = await client.responses.create(model="far", input="Hi", prompt=prompt)

    (asked,) = sent_to(fake, "createChatCompletion")
    assert [one["content"] for one in asked["messages"]] == ["You guide through Oslo.", "Hi"]
    assert said.prompt is not None
    assert said.prompt.variables == {"city": "Oslo"}


async def test_images_and_files_stand_where_a_prompt_has_their_variables(tmp_path):
    see = {"messages": [{"role": "user", "content": "Is {{image}} in {{list}}?"}]}
    url = "data:image/png;base64,AA=="
    prompt = {"id": "pmpt_see", "variables": {
        "image": {"type": "input_image", "detail": "low", "image_url": url},
        "list": {"type": "input_file", "filename": "a.txt", "file_data": "b3ds"},
    }}  # fmt: skip
    fake = FakeUpstream(answer=chat_says({"role": "assistant"}, {"content": "Hello"}))
    more = {"prompts": {"pmpt_see": see}, "file_hosts": ("127.0.0.1:1",)}
    async with client_of(tmp_path, fake, "chat", **more) as client:
        await client.responses.create(model="far", input="Hi", prompt=prompt)
        prompt["variables"]["list"] = {"type": "input_file", "file_url": "http://127.0.0.1:1/"}
        with pytest.raises(openai.BadRequestError, match="private addresses") as refused:
            await client.responses.create(model="far", input="Hi", prompt=prompt)

    (asked,) = sent_to(fake, "createChatCompletion")
    texts = [part.get("text") for part in asked["messages"][0]["content"]]
    assert texts == ["Is ", None, " in ", "[File a.txt]\nowl", "?"]
    assert asked["messages"][0]["content"][1]["image_url"] == {"url": url, "detail": "low"}
    assert refused.value.param == "prompt.variables.list.file_url"


async def test_a_bridged_response_may_end_with_done(tmp_path):
    fake = FakeUpstream(answer=response_says(*text_events("Hello")) + b"data: [DONE]\n\n")
    async with client_of(tmp_path, fake, "responses") as client:
        chat = await client.chat.completions.create(
            model="far", messages=[{"role": "user", "content": "Hi"}]
        )

    assert chat.choices[0].message.content == "Hello"


async def test_a_reason_that_no_protocol_has_is_the_end_of_a_turn(tmp_path):
    fake = FakeUpstream(answer=chat_says({"content": "Hello"}, reason="abort"))
    question: Any = [{"role": "user", "content": "Hi"}]
    async with (
        client_of(tmp_path, fake, "chat") as client,
        anthropic.AsyncAnthropic(
            base_url=str(client.base_url).removesuffix("/v1/"), api_key="k", max_retries=0
        ) as messages,
    ):
        message = await messages.messages.create(model="far", max_tokens=9, messages=question)
        response = await client.responses.create(model="far", input="Hi")
        stored = (await client.chat.completions.list()).data

    assert message.stop_reason == "end_turn"
    assert response.status == "completed"
    assert [chat.choices[0].finish_reason for chat in stored] == ["stop"]


async def test_a_streamed_response_has_its_own_events(tmp_path):
    fake = FakeUpstream(answer=chat_says({"reasoning_content": "Hm."}, {"content": "Hello"}))
    async with client_of(tmp_path, fake, "chat") as client:
        stream = await client.responses.create(model="far", input="Hi", stream=True)
        kinds = [event.type async for event in stream]

    assert kinds[0] == "response.created"
    assert "response.reasoning_text.delta" in kinds
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"


async def test_a_response_calls_tools_by_a_chat(tmp_path):
    call = {"index": 0, "id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": "{}"}}  # fmt: skip
    fake = FakeUpstream(answer=chat_says({"tool_calls": [call]}, reason="tool_calls"))
    async with client_of(tmp_path, fake, "chat") as client:
        first = await client.responses.create(
            model="far", input="Hi", tools=[{"type": "function", "strict": False, **FUNCTION}],
            tool_choice={"type": "function", "name": "weather"},
        )  # fmt: skip
        fake.answer = chat_says({"content": "Sunny."})
        output = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
        second = await client.responses.create(
            model="far", input=[output], previous_response_id=first.id
        )

    asked, again = sent_to(fake, "createChatCompletion")
    assert first.output[0].type == "function_call"
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert again["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "sun"}
    assert second.output_text == "Sunny."


async def test_a_call_without_arguments_has_an_empty_object(tmp_path):
    function = {"name": "weather", "arguments": ""}
    calls = [{"index": index, "id": f"c{index}", "function": function} for index in range(2)]
    deltas = [{"tool_calls": [call]} for call in calls]
    tools: Any = [{"type": "function", "strict": False, **FUNCTION}]
    fake = FakeUpstream(answer=chat_says(*deltas, {"content": "So."}, reason="tool_calls"))
    async with client_of(tmp_path, fake, "chat") as client:
        whole = await client.responses.create(model="far", input="Hi", tools=tools)
        fake.answer = chat_says(*deltas, reason="length")
        cut = await client.responses.create(model="far", input="Hi", tools=tools)

    first, second, _ = whole.output
    assert first.arguments == second.arguments == "{}"
    assert [call.arguments for call in cut.output] == ["{}", ""]


async def test_custom_call_without_arguments_has_an_empty_input(tmp_path):
    call = {"index": 0, "id": "c", "function": {"name": "run", "arguments": ""}}
    fake = FakeUpstream(answer=chat_says({"tool_calls": [call]}, reason="tool_calls"))
    async with client_of(tmp_path, fake, "chat") as client:
        answer = await client.responses.create(
            model="far", input="Hi", tools=[{"type": "custom", "name": "run"}]
        )

    assert [call.input for call in answer.output] == [""]


async def test_a_chat_is_bridged_to_a_response_and_stored(tmp_path):
    fake = FakeUpstream(answer=response_says(*text_events("Hel", "lo")))
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    async with client_of(tmp_path, fake, "responses") as client:
        whole = await client.chat.completions.create(
            model="far", messages=messages, max_tokens=50, reasoning_effort="low"
        )
        stream = await client.chat.completions.create(
            model="far", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [one async for one in stream]
        kept = await client.chat.completions.retrieve(whole.id)

    asked, _ = sent_to(fake, "createResponse")
    assert fake.requests[0].first_line == b"POST /v1/responses HTTP/1.1"
    assert asked["input"] == messages
    assert (asked["max_output_tokens"], asked["reasoning"]) == (50, {"effort": "low"})
    assert asked["store"] is False
    assert whole.choices[0].message.content == kept.choices[0].message.content == "Hello"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 7
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 5


async def test_a_chat_calls_tools_by_a_response(tmp_path):
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
            "arguments": ""}  # fmt: skip
    said = [
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
    ]
    fake = FakeUpstream(answer=response_says(*said))
    user = {"role": "user", "content": "Hi"}
    async with client_of(tmp_path, fake, "responses") as client:
        answer = await client.chat.completions.create(
            model="far", messages=[user], tools=[{"type": "function", "function": FUNCTION}],
            tool_choice="required",
        )  # fmt: skip
        message = answer.choices[0].message
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sun"}
        await client.chat.completions.create(
            model="far", messages=[user, message.model_dump(exclude_none=True), result]
        )

    asked, again = sent_to(fake, "createResponse")
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    assert message.tool_calls[0].id == "call_1"
    assert asked["tool_choice"] == "required"
    assert asked["tools"][0]["strict"] is False
    assert again["input"][1:] == [
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
    ]


async def test_images_are_carried_both_ways(tmp_path):
    url, text = "https://example.com/cat.png", "What is it?"
    by_chat = FakeUpstream(answer=chat_says({"role": "assistant"}, {"content": "A cat"}))
    by_response = FakeUpstream(answer=response_says(*text_events("A cat")))
    shown: Any = [
        {"type": "input_text", "text": text},
        {"type": "input_image", "image_url": url, "detail": "original"},
    ]
    said: Any = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]

    async with client_of(tmp_path / "chat", by_chat, "chat") as client:
        await client.responses.create(model="far", input=[{"role": "user", "content": shown}])
    async with client_of(tmp_path / "responses", by_response, "responses") as client:
        await client.chat.completions.create(
            model="far", messages=[{"role": "user", "content": said}]
        )

    (chat,), (response,) = (
        sent_to(by_chat, "createChatCompletion"),
        sent_to(by_response, "createResponse"),
    )
    assert chat["messages"][0]["content"] == [
        said[0],
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
    ]
    assert response["input"][0]["content"] == [
        shown[0],
        {"type": "input_image", "image_url": url, "detail": "low"},
    ]


async def test_images_of_outputs_of_tools_follow_in_a_message_of_the_user(tmp_path):
    url = "https://example.com/cat.png"
    image = {"type": "input_image", "image_url": url, "detail": "low"}
    text = {"type": "input_text", "text": "A cat."}
    outputs: Any = [[text, image], [image], "none"]
    items: Any = [
        *({**ITEM, "call_id": f"c{index}", "arguments": "{}"} for index in range(3)),
        *({"type": "function_call_output", "call_id": f"c{index}", "output": output}
          for index, output in enumerate(outputs)),
        {"role": "user", "content": "And?"},
    ]  # fmt: skip
    fake = FakeUpstream(answer=chat_says({"content": "A cat"}))
    async with client_of(tmp_path, fake, "chat") as client:
        await client.responses.create(model="far", input=items)

    (asked,) = sent_to(fake, "createChatCompletion")
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    assert [message["role"] for message in asked["messages"]] == [
        "assistant", "tool", "tool", "tool", "user", "user",
    ]  # fmt: skip
    assert [message["content"] for message in asked["messages"][1:]] == [
        "A cat.", SHOWN_LATER, "none", [part, part], "And?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "body", "param"),
    [
        ("chat", {"background": True}, "background"),
        ("chat", {"top_logprobs": 2}, "top_logprobs"),
        ("chat", {"truncation": "auto"}, "truncation"),
        ("chat", {"context_management": [{"type": "compaction"}]}, "context_management"),
        ("chat", {"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ("chat", {"moderation": {"model": "far"}}, "moderation.model"),
        ("chat", {"include": ["message.output_text.logprobs"]}, "include"),
        ("responses", {"stop": ["x"]}, "stop"),
        ("responses", {"messages": AUDIO}, "messages[0].content[0].input_audio"),
        ("responses", {"n": 2}, "n"),
        ("responses", {"messages": [NAMED]}, "messages[0].name"),
        ("responses", {"seed": 1}, "seed"),
        ("responses", {"logit_bias": {"1": 1}}, "logit_bias"),
        ("responses", {"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ],
)
async def test_untranslatable_fields_are_refused_by_name(tmp_path, wire, body, param):
    fake = FakeUpstream()
    async with client_of(tmp_path, fake, wire) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await _ask(client, wire, **body)

    assert refused.value.param == param
    assert fake.requests == []


async def _ask(client: openai.AsyncOpenAI, wire: str, **body: Any) -> Any:
    if wire == "chat":
        return await client.responses.create(model="far", input="Hi", **body)
    hello: Sequence[Any] = [{"role": "user", "content": "Hi"}]
    return await client.chat.completions.create(model="far", **{"messages": hello, **body})


@pytest.mark.parametrize("wire", ["chat", "responses"])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 400 X\r\ncontent-length: 27\r\n\r\n" + b'{"error":{"message":"bad"}}', 400),
        (HEAD + b'data: {"error":{"message":"no"}}\n\n', 502),
        (HEAD + b"data: {half\n\n", 502),
        (HEAD, 502),
    ],
)
async def test_a_failing_upstream_is_a_documented_error(tmp_path, wire, answer, status):
    fake = FakeUpstream(answer=answer)
    async with client_of(tmp_path, fake, wire) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await _ask(client, wire)

    assert failed.value.status_code == status


@pytest.mark.parametrize("wire", ["chat", "responses"])
@pytest.mark.parametrize(
    ("status", "expected"), [(500, 502), (502, 502), (503, 503), (504, 504), (529, 503)]
)
async def test_outage_of_an_upstream_keeps_its_message_and_retry_after(
    tmp_path, wire, status, expected
):
    body = b'{"error":{"message":"The model is being moved.","code":"moving"}}'
    head = f"HTTP/1.1 {status} X\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n"
    fake = FakeUpstream(answer=head.encode() + body)
    async with client_of(tmp_path, fake, wire) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await _ask(client, wire)

    answer = failed.value.response
    assert (answer.status_code, answer.headers["retry-after"]) == (expected, "7")
    assert answer.json()["error"]["message"] == "The model is being moved."
    assert answer.json()["error"]["code"] == "moving"


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        ("chat", {"choices": [1]}),
        ("chat", {"choices": [{"delta": "Hello"}]}),
        ("chat", {"choices": [{"delta": {"content": ["Hello"]}}]}),
        ("chat", {"choices": [{"delta": {"tool_calls": [1]}}]}),
        ("chat", {"choices": 1}),
        ("chat", chunk({"tool_calls": [{**CALL, "index": "x"}]})),
        ("chat", chunk({"tool_calls": [{**CALL, "id": 1}]})),
        ("chat", chunk({"tool_calls": [{**CALL, "function": {"arguments": ["x"]}}]})),
        ("chat", chunk({"tool_calls": [{**CALL, "function": {"arguments": "x"}}]})),
        ("chat", chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})),
        ("chat", {"choices": [{"index": "x", "delta": {}}]}),
        ("chat", {"choices": [{"index": 1, "delta": {}}]}),
        ("chat", {"choices": [{"delta": {}, "finish_reason": 5}]}),
        ("chat", {"choices": [], "usage": {"prompt_tokens": "5"}}),
        ("chat", {"choices": [], "usage": {"prompt_tokens": 2**70}}),
        ("chat", {"choices": [], "usage": [5]}),
        ("responses", {"type": "response.output_item.added"}),
        ("responses", {"type": "response.function_call_arguments.delta", "output_index": 3}),
        ("responses", {"type": "response.output_text.delta", "delta": {}, "item_id": 1}),
        ("responses", {"type": "response.output_text.delta", "delta": ["Hello"]}),
        ("responses", {"type": "response.completed", "response": []}),
        ("responses", {"type": "response.completed", "response": {"usage": {"input_tokens": "5"}}}),
        ("responses", {"type": "response.output_item.added", "item": {**ITEM, "call_id": 1}}),
        ("responses", {"type": "response.output_item.added", "output_index": "x", "item": ITEM}),
        ("responses", {"type": "response.output_item.added", "item": [ITEM]}),
    ],
)
async def test_an_event_of_another_shape_is_the_upstreams_mistake(tmp_path, capsys, wire, event):
    fake = FakeUpstream(answer=events(event) + b"data: [DONE]\n\n")
    async with client_of(tmp_path, fake, wire, name="the-hidden-one") as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await _ask(client, wire)

    assert failed.value.status_code == 502
    assert "the-hidden-one" not in failed.value.message
    assert "the-hidden-one" in capsys.readouterr().err


async def test_an_upstream_that_sends_malformed_events_is_ejected(tmp_path, capsys):
    fake = FakeUpstream(answer=events({"choices": 1}))
    async with client_of(tmp_path, fake, "chat") as client:
        for _ in range(3):
            with pytest.raises(openai.APIStatusError):
                await _ask(client, "chat")

    assert "upstream_ejected" in capsys.readouterr().err


async def test_an_upstream_that_truncates_every_answer_is_ejected(tmp_path, capsys):
    fake = FakeUpstream(answer=events(chunk({"content": "The beginn"})))
    async with client_of(tmp_path, fake, "chat") as client:
        for _ in range(3):
            with pytest.raises(openai.APIStatusError):
                await _ask(client, "chat")

    assert "upstream_ejected" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["code", "type"])
async def test_stream_errors_of_the_servers_own_key_are_hidden(tmp_path, kind):
    name = {"code": "invalid_api_key", "type": "authentication_error"}[kind]
    told = {"type": "error", "error": {"message": "Wrong key sk-up*****cret", kind: name}}
    fake = FakeUpstream(answer=events(told) + b"data: [DONE]\n\n")
    async with client_of(tmp_path, fake, "chat") as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await _ask(client, "chat")

    assert failed.value.status_code == 502
    assert "sk-up" not in failed.value.message


@pytest.mark.parametrize(
    "calls",
    [
        [CALL, {**CALL, "function": {"arguments": "}"}}],  # its id with every piece
        [CALL, {"function": {"arguments": "}"}}],  # no place
    ],
)
async def test_a_call_in_pieces_is_one_call(tmp_path, calls):
    fake = FakeUpstream(answer=chat_says(*({"tool_calls": [call]} for call in calls)))
    async with client_of(tmp_path, fake, "chat") as client:
        answer = await _ask(client, "chat", tools=[{"type": "function", **FUNCTION}])

    assert [item.arguments for item in answer.output] == ["{}"]


async def test_two_calls_with_one_index_are_two_calls(tmp_path):
    calls = [{**CALL, "id": id} for id in ("c1", "c2")]
    fake = FakeUpstream(answer=chat_says({"tool_calls": calls}))
    async with client_of(tmp_path, fake, "chat") as client:
        answer = await _ask(client, "chat", tools=[{"type": "function", **FUNCTION}])

    assert [item.call_id for item in answer.output] == ["c1", "c2"]


async def test_calls_without_ids_get_some(tmp_path):
    begun = {"index": 0, "id": "", "function": {"name": "weather", "arguments": "{"}}
    rest = {"index": 0, "function": {"arguments": "}"}}
    fake = FakeUpstream(answer=chat_says(*({"tool_calls": [one]} for one in [begun, rest] * 2)))
    async with client_of(tmp_path, fake, "chat") as client:
        answer = await _ask(client, "chat", tools=[{"type": "function", **FUNCTION}])

    assert [(item.name, item.arguments) for item in answer.output] == [("weather", "{}")] * 2
    assert len({item.call_id for item in answer.output}) == 2


async def test_arguments_without_deltas_are_passed_on(tmp_path):
    said = [
        {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
        {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": "{}"},
    ]
    fake = FakeUpstream(answer=response_says(*said))
    tools = [{"type": "function", "function": FUNCTION}]
    async with client_of(tmp_path, fake, "responses") as client:
        answer = await _ask(client, "responses", tools=tools)

    calls = answer.choices[0].message.tool_calls
    assert [call.function.arguments for call in calls] == ["{}"]


async def test_a_bridged_answers_connection_is_used_again(tmp_path):
    body = chat_says({"content": "Hello"}).removeprefix(HEAD)
    head = HEAD.replace(b"connection: close", b"content-length: %d" % len(body))
    ports = set()

    async def answer(_: Message, connection: Connection) -> None:
        ports.add(connection.writer.get_extra_info("peername")[1])
        while True:
            await connection.send(head + body)
            await connection.message()

    async with client_of(tmp_path, FakeUpstream(answer=answer), "chat") as client:
        for _ in range(3):
            await _ask(client, "chat")

    assert len(ports) == 1


async def test_a_chat_that_ends_without_a_reason_has_ended(tmp_path):
    fake = FakeUpstream(answer=events(chunk({"content": "Hello"})) + b"data: [DONE]\n\n")
    async with client_of(tmp_path, fake, "chat") as client:
        answer = await _ask(client, "chat")

    assert (answer.output_text, answer.status) == ("Hello", "completed")


async def test_an_upstream_that_speaks_both_is_relayed(tmp_path):
    fake = FakeUpstream(answer=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    async with client_of(tmp_path, fake, "both") as client:
        messages = [{"role": "user", "content": "hi"}]
        for path, field in (("/responses", "input"), ("/chat/completions", "messages")):
            await client.post(path, body={"model": "m", field: messages}, cast_to=object)

    lines = [request.first_line.split()[1] for request in fake.requests]
    assert lines == [b"/v1/responses", b"/v1/chat/completions"]


async def used(client: openai.AsyncOpenAI) -> list[tuple[int, int, int]]:
    """Of what was counted: input and output tokens, and requests."""
    told = await client._client.get(
        f"{client.base_url}organization/usage/completions?start_time={int(time.time()) - 120}"
    )
    results = [one for bucket in told.json()["data"] for one in bucket["results"]]
    return [
        (one["input_tokens"], one["output_tokens"], one["num_model_requests"]) for one in results
    ]


@pytest.mark.parametrize("wire", ["chat", "responses"])
async def test_usage_of_a_bridged_stream_is_counted_without_include_usage(tmp_path, wire):
    says = {"chat": chat_says({"content": "Hello"}), "responses": response_says(*text_events("Hi"))}
    async with client_of(tmp_path, FakeUpstream(answer=says[wire]), wire) as client:
        if wire == "chat":
            asking: Any = client.responses.create(model="far", input="Hi", stream=True)
        else:
            asking = client.chat.completions.create(
                model="far", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
        async for _ in await asking:
            pass
        counted = await used(client)

    assert counted == [(5, 2, 1)]


async def test_missing_usage_of_a_bridged_upstream_is_estimated(tmp_path):
    said = events(*map(chunk, [{"content": "Hello"}, {"content": " you"}]), chunk({}, "stop"))
    async with client_of(tmp_path, FakeUpstream(answer=said), "chat") as client:
        await client.responses.create(model="far", input="Hi")
        ((given, said_tokens, requests),) = await used(client)

    assert (said_tokens, requests) == (3, 1)
    assert given > 5


async def test_a_refusal_is_bridged_in_both_directions(tmp_path):
    user = {"role": "user", "content": "Hi"}
    by_chat = FakeUpstream(answer=chat_says({"refusal": "I can"}, {"refusal": "not."}))
    said = [{"type": "response.refusal.delta", "delta": one} for one in ("I can", "not.")]
    by_response = FakeUpstream(answer=response_says(*text_events(), *said))

    async with client_of(tmp_path / "chat", by_chat, "chat") as client:
        response = await client.responses.create(model="far", input="Hi")
        stream = await client.responses.create(model="far", input="Hi", stream=True)
        told = [event async for event in stream]
    async with client_of(tmp_path / "responses", by_response, "responses") as client:
        first = await client.chat.completions.create(model="far", messages=[user])
        message = first.choices[0].message
        again = [user, message.model_dump(exclude_none=True), user]
        await client.chat.completions.create(model="far", messages=again)

    assert response.output[0].content[0].refusal == "I cannot."
    check_events([event.model_dump(exclude_unset=True) for event in told])
    assert [event.delta for event in told if event.type == "response.refusal.delta"] == [
        "I can", "not.",
    ]  # fmt: skip
    assert (message.content, message.refusal) == (None, "I cannot.")
    _, asked = sent_to(by_response, "createResponse")
    assert asked["input"][1]["content"] == [{"type": "refusal", "refusal": "I cannot."}]


async def test_an_answer_that_was_filtered_is_not_whole(tmp_path):
    fake = FakeUpstream(answer=chat_says({"content": "Hel"}, reason="content_filter"))
    async with client_of(tmp_path, fake, "chat") as client:
        answer = await client.responses.create(model="far", input="Hi")

    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "content_filter"


SCHEMA = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}


@pytest.mark.parametrize("text", ["{}", "I would rather not."])
async def test_form_and_length_of_an_answer_are_the_upstreams_to_see_to(tmp_path, text):
    by_chat = FakeUpstream(answer=chat_says({"content": text}))
    by_response = FakeUpstream(answer=response_says(*text_events(text)))
    form: Any = {"name": "a", "schema": SCHEMA, "strict": False}
    more: Any = {"prompt_cache_retention": "24h", "prompt_cache_key": "k"}

    async with client_of(tmp_path / "chat", by_chat, "chat") as client:
        answer = await client.responses.create(
            model="far", input="Hi", **more,
            text={"verbosity": "low", "format": {"type": "json_schema", **form}},
        )  # fmt: skip
    async with client_of(tmp_path / "responses", by_response, "responses") as client:
        completion = await client.chat.completions.create(
            model="far", messages=[{"role": "user", "content": "Hi"}], verbosity="low", **more,
            response_format={"type": "json_schema", "json_schema": form},
        )  # fmt: skip

    (chat,) = sent_to(by_chat, "createChatCompletion")
    (response,) = sent_to(by_response, "createResponse")
    assert answer.output_text == completion.choices[0].message.content == text
    assert (chat["verbosity"], chat["prompt_cache_retention"]) == ("low", "24h")
    assert chat["response_format"] == {"type": "json_schema", "json_schema": form}
    assert response["text"] == {"verbosity": "low", "format": {"type": "json_schema", **form}}
    assert response["prompt_cache_retention"] == "24h"


async def test_arguments_of_strict_functions_are_the_upstreams_to_see_to(tmp_path):
    strict = {**FUNCTION, "parameters": {**SCHEMA, "required": ["a"]}, "strict": True}
    call = {**CALL, "function": {"name": "weather", "arguments": '{"b": 1}'}}
    item = {**ITEM, "id": "fc_1", "arguments": ""}
    said = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"b": 1}'},
    ]
    by_chat = FakeUpstream(answer=chat_says({"tool_calls": [call]}, reason="tool_calls"))
    by_response = FakeUpstream(answer=response_says(*said))

    async with client_of(tmp_path / "chat", by_chat, "chat") as client:
        tools: Any = [{"type": "function", **strict}]
        answer = await client.responses.create(model="far", input="Hi", tools=tools)
    async with client_of(tmp_path / "responses", by_response, "responses") as client:
        completion = await client.chat.completions.create(
            model="far", messages=[{"role": "user", "content": "Hi"}],
            tools=[{"type": "function", "function": strict}],
        )  # fmt: skip

    (chat,) = sent_to(by_chat, "createChatCompletion")
    (response,) = sent_to(by_response, "createResponse")
    assert answer.output[0].arguments == '{"b": 1}'
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"b": 1}'
    assert chat["tools"][0]["function"]["strict"] is response["tools"][0]["strict"] is True


async def test_functions_in_the_old_form_are_carried_over(tmp_path):
    fake = FakeUpstream(answer=response_says(*text_events("Sunny.")))
    messages: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "sun"},
    ]
    async with client_of(tmp_path, fake, "responses") as client:
        await client.chat.completions.create(model="far", messages=messages)

    (asked,) = sent_to(fake, "createResponse")
    call, output = asked["input"][1:]
    assert (call["name"], output["output"]) == ("weather", "sun")
    assert call["call_id"] == output["call_id"]


async def test_a_text_without_deltas_is_passed_on(tmp_path):
    done = {"type": "response.output_text.done", "output_index": 0, "content_index": 0}
    fake = FakeUpstream(
        answer=response_says(
            *text_events("Hel"),
            {**done, "text": "Hel"},
            {**done, "content_index": 1, "text": "lo"},
        )
    )
    async with client_of(tmp_path, fake, "responses") as client:
        answer = await _ask(client, "responses")

    assert answer.choices[0].message.content == "Hello"


@pytest.mark.parametrize("wire", ["chat", "responses"])
async def test_an_upstreams_refusal_keeps_code_and_retry_after(tmp_path, wire):
    said = {"error": {"message": "Too much.", "code": "context_length_exceeded", "param": "x"}}
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with client_of(tmp_path, FakeUpstream(answer=head + body), wire) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await _ask(client, wire)

    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", None)
    assert refused.value.response.headers["retry-after"] == "7"


async def test_compaction_keeps_messages_of_the_system_and_of_the_user(tmp_path):
    roles: Any = ["system", "developer", "user", "assistant", "user"]
    items: Any = [{"role": role, "content": "Hi"} for role in roles]
    fake = FakeUpstream(answer=chat_says({"content": "Hello"}))
    async with client_of(tmp_path, fake, "chat") as client:
        short: Any = await client.responses.compact(model="far", input=items)

    *messages, summary = short.output
    assert [message.role for message in messages] == ["system", "developer", "user", "user"]
    assert summary.type == "compaction"


async def test_conversations_and_compaction_work_with_upstreams_that_serve_only_chats(tmp_path):
    fake = FakeUpstream(answer=chat_says({"content": "Hello"}))
    async with client_of(tmp_path, fake, "chat") as client:
        conversation = await client.conversations.create()
        for said in ("Hi", "And?"):
            await client.responses.create(model="far", input=said, conversation=conversation.id)
        short = await client.responses.compact(
            model="far", input=[{"role": "user", "content": "Hi"}]
        )
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.input_tokens.count(model="far", input="Hi")

    _, again, compacted = sent_to(fake, "createChatCompletion")
    assert [one["content"] for one in again["messages"]] == ["Hi", "Hello", "And?"]
    assert short.output[-1].type == "compaction"
    assert "Summarise" in compacted["messages"][-1]["content"]
    assert refused.value.param == "model"
