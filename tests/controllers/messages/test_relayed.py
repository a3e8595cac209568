"""Observer of relayed messages: usage and texts of answers as upstreams send them."""

import json
from typing import Any

import pytest

from llm_backend.backends.base import Usage
from llm_backend.controllers.messages.relayed import MessageObserver

START: Any = {
    "type": "message_start",
    "message": {"type": "message", "usage": {"input_tokens": 10, "output_tokens": 1}},
}
END: Any = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 50_000, "output_tokens": 4000},
    },
    {"type": "message_stop"},
]


def block(index: int, content_block: Any, *deltas: Any) -> list[Any]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content_block},
        *({"type": "content_block_delta", "index": index, "delta": one} for one in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(value: str) -> Any:
    return {"type": "text_delta", "text": value}


def observed(*events: Any) -> MessageObserver:
    observer = MessageObserver()
    for event in events:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        observer.feed(b"data: " + data + b"\n\n")
    observer.close()
    return observer


def test_output_of_an_answer_that_is_cut_is_estimated():
    begun = block(0, {"type": "text", "text": ""}, *[text("word " * 96)] * 100)
    cut = observed(START, *begun)

    assert cut.usage == Usage(prompt_tokens=10, completion_tokens=480 * 100 // 4)
    assert not cut.is_complete


def test_reported_usage_replaces_the_estimate():
    whole = observed(START, *block(0, {"type": "text", "text": ""}, text("a" * 400)), *END)

    assert whole.usage == Usage(prompt_tokens=50_000, completion_tokens=4000)
    assert whole.is_complete


def test_blocks_that_no_chat_has_are_skipped_and_usage_is_counted():
    called = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    whole = observed(
        START,
        *block(0, called, {"type": "input_json_delta", "partial_json": '{"query": "x"}'}),
        *block(1, found),
        *block(2, {"type": "text", "text": ""}, text("It is so.")),
        *END,
    )
    message = whole.completion("far")["choices"][0]["message"]

    assert whole.usage == Usage(prompt_tokens=50_000, completion_tokens=4000)
    assert whole.is_complete
    assert (message["content"], message.get("tool_calls")) == ("It is so.", None)


@pytest.mark.parametrize("broken", [b"{", b"[]", b'{"type": "content_block_start", "index": 0}'])
def test_usage_behind_a_malformed_event_is_counted(broken: bytes):
    answer = observed(START, broken, *block(0, {"type": "text", "text": "Hi"}), *END)

    assert answer.usage == Usage(prompt_tokens=50_000, completion_tokens=4000)
    assert not answer.is_complete
