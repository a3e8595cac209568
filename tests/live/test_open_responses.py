"""The Open Responses specification, asked over HTTP of a served process."""

import base64
import json
import time
from typing import Any

import httpx
import pytest

from tests.extraction.documents import pdf
from tests.open_responses import check_compaction, check_event, check_response
from tests.serving import Served
from tests.strict_sdk import StrictOpenAI

HELLO = {"type": "message", "role": "user", "content": "Hello!"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 24}},
        "required": ["city"],
    },
}
ASKS_FOR_WEATHER = {**HELLO, "content": "What is the weather in Paris?"}
ENDED = ("completed", "incomplete", "failed")


def asked(server: Served, path: str = "/responses", /, **body: Any) -> dict[str, Any]:
    given = {"model": "builtin", "temperature": 0, **body}
    answer = httpx.post(f"{server.base_url}{path}", json=given, timeout=60)
    assert answer.status_code == 200, answer.text
    response: dict[str, Any] = answer.json()
    if path == "/responses":
        check_response(response)
    return response


def streamed(server: Served, **body: Any) -> list[dict[str, Any]]:
    given = {"model": "builtin", "stream": True, "temperature": 0, **body}
    answer = httpx.post(f"{server.base_url}/responses", json=given, timeout=60)
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    for event in events:
        check_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "Hello!"},
        {"input": [{**HELLO, "role": "system", "content": "Be kind."}, HELLO]},
        {"input": [{**HELLO, "role": "developer", "content": "Be kind."}, HELLO]},
        {"input": [HELLO, {**HELLO, "role": "assistant", "content": "Hi."}, HELLO]},
        {"input": [HELLO], "instructions": "Be kind.", "metadata": {"a": "b"}},
        {"input": [HELLO], "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        {"input": [HELLO], "text": {"format": {"type": "json_object"}}, "max_output_tokens": 64},
        {"input": [HELLO], "truncation": "auto", "max_tool_calls": 1, "parallel_tool_calls": False},
        {"input": [HELLO], "safety_identifier": "s", "prompt_cache_key": "k", "store": False},
        {"input": [HELLO], "service_tier": "flex", "reasoning": {"effort": "none"}},
    ],
)
def test_a_response_and_its_events_have_what_they_must(server, fields):
    whole = asked(server, **fields)
    events = streamed(server, **fields)

    assert whole["status"] in ENDED
    assert whole["output"]
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["status"] == whole["status"]
    assert events[-1]["response"]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


def test_penalties_are_accepted_and_echoed(server):
    long = "Say" + 12 * " na"  # the penalty of the last one is larger than any certainty
    told = asked(server, input="Hello!", presence_penalty=0.5, frequency_penalty=-1)
    plain = asked(server, input="Hello!")
    strong = asked(server, input=long, frequency_penalty=2, presence_penalty=2)
    none = asked(server, input=long)
    refused = httpx.post(
        f"{server.base_url}/responses",
        json={"model": "builtin", "input": "Hello!", "presence_penalty": 3},
    )

    assert (told["presence_penalty"], told["frequency_penalty"]) == (0.5, -1)
    assert (plain["presence_penalty"], plain["frequency_penalty"]) == (0, 0)
    assert strong["output"][0]["content"] != none["output"][0]["content"]
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "presence_penalty"


def test_a_schema_is_repeated_with_all_its_fields(server):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "name": "answer", "schema": schema}
    told = asked(server, input="Hello!", text={"format": form})

    assert told["text"]["format"] == {**form, "description": None, "strict": False}


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required",
         "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)  # fmt: skip
def test_a_call_is_returned_and_its_output_answered(server, choice):
    fields = {"input": [ASKS_FOR_WEATHER], "tools": [WEATHER], "tool_choice": choice}
    called = asked(server, **fields)
    events = streamed(server, **fields)
    call = called["output"][-1]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    by_items = asked(server, input=[ASKS_FOR_WEATHER, *called["output"], output], tools=[WEATHER])
    by_id = asked(server, input=[output], previous_response_id=called["id"], tools=[WEATHER])

    assert (called["status"], call["type"]) == ("completed", "function_call")
    assert called["tools"][0]["description"] is None
    assert {"output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
            "output_item.done"} <= set(kinds(events))  # fmt: skip
    assert by_items["output"]
    assert by_id["previous_response_id"] == called["id"]


def test_a_conversation_is_gone_on_from_and_compacted(server):
    first = asked(server, input="My name is Alice.")
    second = asked(server, input="What is my name?", previous_response_id=first["id"])
    compacted = asked(
        server, "/responses/compact", previous_response_id=second["id"], temperature=None
    )
    check_compaction(compacted)
    third = asked(server, input=[*compacted["output"], HELLO])

    assert third["status"] in ENDED


def test_a_file_is_read(server):
    data = base64.b64encode(pdf("The code is 4711.")).decode()
    file = {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": f"data:application/pdf;base64,{data}",
    }
    text = {"type": "input_text", "text": "What is the code?"}

    assert asked(server, input=[{**HELLO, "content": [text, file]}])["output"]


def test_one_that_is_cut_and_one_in_the_background_have_what_they_must(server):
    cut = asked(server, input="Count to a hundred.", max_output_tokens=16)
    queued = asked(server, input="Hello!", background=True)
    while (response := httpx.get(f"{server.base_url}/responses/{queued['id']}").json())[
        "status"
    ] not in ENDED:
        check_response(response)
        time.sleep(0.05)
    check_response(response)
    events = streamed(server, input="Hello!", background=True)

    assert cut["status"] in ENDED
    assert (queued["status"], queued["usage"], queued["background"]) == ("queued", None, True)
    assert kinds(events)[1] == "queued"


def test_a_search_is_repeated_with_all_its_fields(library_server):
    with StrictOpenAI(base_url=library_server.base_url, api_key="none") as client:
        file = client.files.create(file=("a.txt", b"The code is 4711."), purpose="assistants")
        store = client.vector_stores.create(file_ids=[file.id])
        while client.vector_stores.retrieve(store.id).status != "completed":
            time.sleep(0.05)
    tool = {"type": "file_search", "vector_store_ids": [store.id]}
    fields = {
        "input": "What is the code?",
        "include": ["file_search_call.results"],
        "max_output_tokens": 32,
    }
    plain = asked(library_server, **fields, tools=[tool])
    ranked = asked(
        library_server,
        **fields,
        tools=[{**tool, "max_num_results": 3, "ranking_options": {"score_threshold": 0.1}}],
    )
    streamed(library_server, **fields, tools=[tool])

    call = plain["output"][0]
    assert call["results"][0]["vector_store_id"] == store.id
    assert plain["tools"][0]["filters"] is None
    assert plain["tools"][0]["ranking_options"] == {"ranker": "auto", "score_threshold": 0}
    assert ranked["tools"][0]["max_num_results"] == 3
    assert ranked["tools"][0]["ranking_options"] == {"ranker": "auto", "score_threshold": 0.1}
