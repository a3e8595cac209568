"""Observer of relayed messages: which bytes it understands, and when an answer is whole."""

import json

import pytest

from llm_backend.controllers.messages.relayed import MessageObserver

BOM = b"\xef\xbb\xbf"
MESSAGE = {
    "type": "message",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
WHOLE = json.dumps(MESSAGE).encode()
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
STREAM = b"".join(
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS
)


def observe(body: bytes, piece_bytes: int, limit_bytes: int = 1 << 20) -> MessageObserver:
    observer = MessageObserver(limit_bytes)
    for start in range(0, len(body), piece_bytes):
        observer.feed(body[start : start + piece_bytes])
    observer.close()
    return observer


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("start", [b"", BOM, b"\r\n "])
@pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
def test_observer_reads_a_message_however_it_is_sent(body: bytes, start: bytes, piece_bytes: int):
    observer = observe(start + body, piece_bytes)

    assert observer.is_complete
    assert (observer.usage.prompt_tokens, observer.usage.completion_tokens) == (3, 2)
    message = observer.completion("claude")["choices"][0]["message"]
    assert message["content"] == "Hello."


@pytest.mark.parametrize("body", [b"[" + WHOLE + b"]", WHOLE[:-1], b"data: no JSON\n\n" + STREAM])
def test_observer_of_no_message_is_not_complete(body: bytes):
    observer = observe(body, 7)

    assert not observer.is_complete
    assert not observer.has_answer


def test_observer_of_an_overlong_answer_is_not_complete():
    observer = observe(STREAM + b": ping\n\n", 1 << 20, limit_bytes=len(STREAM) - 1)
    ended = MessageObserver(len(STREAM))
    for piece in (STREAM, b": ping\n\n"):
        ended.feed(piece)

    assert observer.is_overlong
    assert not observer.is_complete
    assert ended.is_overlong
    assert not ended.is_complete
