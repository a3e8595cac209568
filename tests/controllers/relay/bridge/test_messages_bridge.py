"""Clients of chats, responses and messages are served by an upstream of Anthropic's Messages."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic import types
from pydantic import TypeAdapter

from llm_backend.backends.base import Chat
from llm_backend.backends.local.media import Image
from llm_backend.controllers.relay.bridge.as_message import as_message
from llm_backend.errors import UnsupportedField
from tests.controllers.relay.bridge.test_bridge import HEAD, sent_to
from tests.gateway import backend, gateway
from tests.strict_sdk import StrictAsyncOpenAI
from tests.upstream import FakeUpstream

HI: list[Any] = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}},
}
EVENT: TypeAdapter[Any] = TypeAdapter(types.RawMessageStreamEvent)
USAGE = {
    "input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 3,
    "cache_creation_input_tokens": 2,
}  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "far", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": USAGE,
}  # fmt: skip


def events(*blocks: Any, reason: str = "end_turn", stop: str | None = None) -> list[Any]:
    """The events of a message with these blocks: a text, reasoning, or a call's name and parts."""
    said: list[Any] = [{"type": "message_start", "message": MESSAGE}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        kind, *pieces = block
        begin, name, field = {
            "text": ({"text": ""}, "text_delta", "text"),
            "thinking": ({"thinking": "", "signature": ""}, "thinking_delta", "thinking"),
            "tool_use": (
                {"id": f"toolu_{index}", "name": "weather", "input": {}},
                "input_json_delta", "partial_json",
            ),
        }[kind]  # fmt: skip
        start = {"type": "content_block_start", "index": index}
        said.append({**start, "content_block": {"type": kind, **begin}})
        for piece in pieces:
            delta = {"type": name, field: piece}
            said.append({"type": "content_block_delta", "index": index, "delta": delta})
        said.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": reason, "stop_sequence": stop}
    said += [
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    for one in said:
        if one["type"] != "ping":  # which the client reads itself
            EVENT.validate_python(one)
    return said


def streamed(said: Sequence[Any]) -> bytes:
    return HEAD + b"".join(
        b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode())
        for one in said
    )


@asynccontextmanager
async def served(tmp_path: Any, fake: FakeUpstream, **more: Any) -> AsyncIterator[str]:
    """The address of a gateway whose only backend is the fake."""
    settings = {"store_chats": "always", "response_validation": "enforce", **more}
    async with fake:
        backends = [backend(fake, "a", kind="anthropic")]
        async with gateway(
            tmp_path, backends=backends, allowed_hosts=("127.0.0.1",), **settings
        ) as relay:
            yield f"http://127.0.0.1:{relay.port}"


def openai_client(address: str) -> openai.AsyncOpenAI:
    return StrictAsyncOpenAI(base_url=f"{address}/v1", api_key="k", max_retries=0)


async def test_a_chat_is_bridged_to_a_message_streamed_and_whole(tmp_path):
    said = events(("thinking", "hm"), ("text", "Hel", "lo"), reason="stop_sequence", stop="END")
    fake = FakeUpstream(answer=streamed(said))
    asked: Any = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "And brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "See"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
    ]  # fmt: skip
    options: Any = {"temperature": 0.5, "stop": ["END"], "user": "u", "reasoning_effort": "low"}
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        whole = await client.chat.completions.create(model="far", messages=asked, **options)
        parts = [
            part
            async for part in await client.chat.completions.create(
                model="far", messages=asked, stream=True,
                stream_options={"include_usage": True}, **options,
            )
        ]  # fmt: skip
        stored = (await client.chat.completions.list()).data

    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert whole.choices[0].message.content == text == "Hello"
    assert stored[0].choices[0].message.content == "Hello"
    assert whole.choices[0].message.to_dict()["reasoning_content"] == "hm"
    assert whole.choices[0].finish_reason == "stop"
    for usage in (whole.usage, parts[-1].usage):
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (10, 7)
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == 3
    request, body = fake.requests[0], sent_to(fake, "createAnthropicMessage")[0]
    assert request.first_line == b"POST /v1/messages HTTP/1.1"
    assert request.values(b"x-api-key") == [b"k"]
    assert request.values(b"anthropic-version") == [b"2023-06-01"]
    assert request.values(b"authorization") == []
    assert body == {
        "model": "far", "max_tokens": 4096, "stream": True, "temperature": 0.5,
        "system": "Be kind.\n\nAnd brief.", "stop_sequences": ["END"],
        "metadata": {"user_id": "u"}, "output_config": {"effort": "low"},
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "See"},
            {"type": "image", "source": {
                "type": "base64", "media_type": "image/png", "data": "AA=="}}]}],
    }  # fmt: skip


def test_an_image_in_a_system_message_is_refused_by_its_path():
    image = Image(url="data:image/png;base64,AA==", param="p")
    chat = Chat(messages=[{"role": "system", "content": ["Look:", image]}])

    with pytest.raises(UnsupportedField) as caught:
        as_message({"model": "far", "input": []}, chat, "far", max_tokens=9)

    assert caught.value.param == "p"


async def test_tools_are_called_and_their_results_are_one_message(tmp_path):
    said = events(("text", "So"), ("tool_use", '{"a"', ": 1}"), ("tool_use",), reason="tool_use")
    fake = FakeUpstream(answer=streamed(said))
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        first = await client.chat.completions.create(
            model="far", messages=HI, tools=[WEATHER], tool_choice="required",
            parallel_tool_calls=False,
        )  # fmt: skip
        message = first.choices[0].message
        # LangGraph names the tool in its result.
        results: list[Any] = [
            {"role": "tool", "tool_call_id": call.id, "content": "sunny", "name": "weather"}
            for call in message.tool_calls or ()
        ]
        turns: Any = [*HI, message.to_dict(), *results]
        await client.chat.completions.create(model="far", messages=turns, tools=[WEATHER])

    assert [call.to_dict()["function"] for call in message.tool_calls or ()] == [
        {"name": "weather", "arguments": '{"a": 1}'}, {"name": "weather", "arguments": "{}"},
    ]  # fmt: skip
    assert first.choices[0].finish_reason == "tool_calls"
    asked, again = sent_to(fake, "createAnthropicMessage")
    assert asked["tools"] == [
        {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
    ]
    assert asked["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert again["messages"][1:] == [
        {"role": "assistant", "content": [
            {"type": "text", "text": "So"},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"a": 1}},
            {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": [
                {"type": "text", "text": "sunny"}]} for id in ("toolu_1", "toolu_2")]},
    ]  # fmt: skip


async def test_a_response_is_bridged_and_continued(tmp_path):
    fake = FakeUpstream(answer=streamed(events(("text", "Hello"), reason="max_tokens")))
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    form: Any = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        first = await client.responses.create(
            model="far", input="Hi", instructions="Be kind.", max_output_tokens=50,
            text={"format": form},
        )  # fmt: skip
        await client.responses.create(model="far", input="And?", previous_response_id=first.id)

    assert (first.output_text, first.status) == ("Hello", "incomplete")
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.output_tokens) == (10, 7)
    asked, again = sent_to(fake, "createAnthropicMessage")
    assert (asked["system"], asked["max_tokens"]) == ("Be kind.", 50)
    assert asked["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert [turn["content"][0]["text"] for turn in again["messages"]] == ["Hi", "Hello", "And?"]


async def test_a_message_is_relayed_as_it_is_counted_and_stored(tmp_path):
    said = events(("text", "Hello"), ("tool_use", '{"a": 1}'), reason="tool_use")
    fake = FakeUpstream(answer=streamed(said))
    block = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    asked: Any = [{"role": "user", "content": [block]}]
    whole = {**MESSAGE, "content": [{"type": "text", "text": "Whole"}], "stop_reason": "end_turn"}
    async with (
        served(tmp_path, fake) as address,
        openai_client(address) as client,
        anthropic.AsyncAnthropic(base_url=address, api_key="c", max_retries=0) as messages,
    ):
        async with messages.messages.stream(
            model="far", max_tokens=9, messages=asked, extra_headers={"anthropic-beta": "b"}
        ) as stream:
            told = await stream.get_final_message()
        data = json.dumps(whole).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        fake.answer = head % len(data) + data
        again = await messages.messages.create(model="far", max_tokens=9, messages=asked)
        stored = (await client.chat.completions.list(order="asc")).data
        today = int(time.time()) // 86400 * 86400 - 86400
        path = f"/organization/usage/completions?start_time={today}"
        usage = await client.get(path, cast_to=object)

    assert [block.type for block in told.content] == ["text", "tool_use"]
    assert again.content[0].type == "text"
    assert json.loads(fake.requests[0].body)["messages"] == asked
    assert fake.requests[0].values(b"anthropic-beta") == [b"b"]
    assert fake.requests[0].values(b"x-api-key") == [b"k"]
    assert [chat.choices[0].message.content for chat in stored] == ["Hello", "Whole"]
    assert stored[0].choices[0].message.tool_calls is not None
    buckets: Any = usage
    counted = [one for bucket in buckets["data"] for one in bucket["results"]]
    assert [(one["input_tokens"], one["output_tokens"]) for one in counted] == [(20, 8)]


async def test_models_are_listed_as_openais(tmp_path):
    model = {
        "type": "model", "id": "far", "display_name": "Far", "created_at": "2025-02-19T00:00:00Z",
    }  # fmt: skip
    data = json.dumps({"data": [model], "has_more": False}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    fake = FakeUpstream(answer=head % len(data) + data)
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        listed = (await client.models.list()).data

    assert [(one.id, one.created, one.owned_by) for one in listed] == [
        ("far", 1739923200, "anthropic")
    ]
    assert fake.requests[0].first_line.startswith(b"GET /v1/models?limit=1000 ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages[0].name"),
    ],
)
async def test_fields_that_messages_lack_are_refused_by_name(tmp_path, fields: Any, param: str):
    fake = FakeUpstream()
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(**{"model": "far", "messages": HI, **fields})

    assert refused.value.param == param
    assert fake.requests == []


async def test_errors_of_the_upstream_reach_each_client_in_its_shape(tmp_path):
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "Too many."}}
    data = json.dumps(error).encode()
    head = b"HTTP/1.1 429 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    fake = FakeUpstream(answer=head % len(data) + data)
    broken = streamed([{"type": "message_start", "message": MESSAGE}, error])
    async with (
        served(tmp_path, fake) as address,
        openai_client(address) as client,
        httpx.AsyncClient(base_url=address) as plain,
        anthropic.AsyncAnthropic(base_url=address, api_key="c", max_retries=0) as messages,
    ):
        with pytest.raises(openai.RateLimitError, match="Too many"):
            await client.chat.completions.create(model="far", messages=HI)
        with pytest.raises(anthropic.RateLimitError, match="Too many"):
            await messages.messages.create(model="far", max_tokens=5, messages=HI)
        ollama = await plain.post("/api/chat", json={"model": "far", "messages": HI})
        fake.answer = broken
        with pytest.raises(openai.RateLimitError, match="Too many"):
            await client.chat.completions.create(model="far", messages=HI)
        stream = await plain.post("/api/chat", json={"model": "far", "messages": HI})

    assert (ollama.status_code, ollama.json()) == (429, {"error": "Too many."})
    assert json.loads(stream.text.splitlines()[-1]) == {"error": "Too many."}


async def test_history_with_calls_keeps_its_tools_where_none_may_be_called(tmp_path):
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    history: list[Any] = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "rain"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "And now?"},
    ]
    fake = FakeUpstream(answer=streamed(events(("text", "Rain."))))
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        await client.chat.completions.create(
            model="far", messages=history, tools=[WEATHER], tool_choice="none"
        )
    (asked,) = sent_to(fake, "createAnthropicMessage")

    assert [one["name"] for one in asked["tools"]] == ["weather"]
    assert asked["tool_choice"] == {"type": "none"}
    assert [one["role"] for one in asked["messages"]] == ["user", "assistant", "user", "user"]
    assert all(one["content"] for one in asked["messages"])


async def test_an_answer_may_end_with_done(tmp_path):
    fake = FakeUpstream(answer=streamed(events(("text", "Hello"))) + b"data: [DONE]\n\n")
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        whole = await client.chat.completions.create(model="far", messages=HI)

    assert whole.choices[0].message.content == "Hello"
    assert whole.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([None, "max_tokens"], "length"),
        (["max_tokens", None], "length"),
        (["max_tokens", "max_tokens"], "length"),
        ([None], "stop"),
        ([], "stop"),
    ],
)
async def test_an_answer_has_one_reason_of_all_its_message_deltas(tmp_path, reasons, expected):
    *said, last, stop = events(("text", "Hello"))
    endings = [{**last, "delta": {"stop_reason": one, "stop_sequence": None}} for one in reasons]
    fake = FakeUpstream(answer=streamed([*said, *endings, stop]))
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        parts = [
            part
            async for part in await client.chat.completions.create(
                model="far", messages=HI, stream=True
            )
        ]

    given = [part.choices[0].finish_reason for part in parts if part.choices]
    assert [one for one in given if one is not None] == [expected]


async def test_a_refusal_in_the_history_is_a_text(tmp_path):
    history: list[Any] = [
        *HI,
        {"role": "assistant", "content": None, "refusal": "I will not."},
        {"role": "user", "content": "Why?"},
    ]
    fake = FakeUpstream(answer=streamed(events(("text", "So."))))
    async with served(tmp_path, fake) as address, openai_client(address) as client:
        await client.chat.completions.create(model="far", messages=history)

    (asked,) = sent_to(fake, "createAnthropicMessage")
    assert asked["messages"][1] == {
        "role": "assistant", "content": [{"type": "text", "text": "I will not."}]
    }  # fmt: skip
