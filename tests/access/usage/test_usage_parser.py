"""Usage parser: tokens that an upstream reports at the end of its answer."""

import gzip
import json
import time
from types import SimpleNamespace

import pytest

from llm_backend.access.usage.estimate import tokens_of
from llm_backend.access.usage.metered_operations import METERED
from llm_backend.access.usage.usage_parser import UsageTail, parse_usage, read_usage
from llm_backend.contract.body_bounds import text_bytes
from llm_backend.store.administration import Tokens

CHAT = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 3},
}
RESPONSE = {
    "input_tokens": 10,
    "output_tokens": 4,
    "input_tokens_details": {"cached_tokens": 3},
}
TOLD = Tokens(input_tokens=10, cached_tokens=3, output_tokens=4)


@pytest.mark.parametrize("usage", [CHAT, RESPONSE])
@pytest.mark.parametrize("indent", [None, 2])
def test_usage_of_chats_and_of_responses_is_parsed(usage, indent):
    body = json.dumps({"id": "x", "usage": usage, "model": "m"}, indent=indent).encode()

    assert parse_usage(body) == TOLD


SEEN = {
    **CHAT,
    "prompt_tokens_details": {"cached_tokens": 3, "image_tokens": 4, "audio_tokens": 2},
    "completion_tokens_details": {"audio_tokens": 1},
}
SPOKEN = {
    "input_tokens": 10,
    "output_tokens": 4,
    "input_token_details": {
        "text_tokens": 4, "image_tokens": 4, "audio_tokens": 2, "cached_tokens": 3,
        "cached_tokens_details": {"text_tokens": 2, "audio_tokens": 1},
    },
    "output_token_details": {"text_tokens": 3, "audio_tokens": 1},
}  # fmt: skip


@pytest.mark.parametrize(("usage", "cached_audio"), [(SEEN, 0), (SPOKEN, 1)])
def test_media_tokens_are_parsed_separately(usage, cached_audio):
    told = parse_usage(json.dumps({"usage": usage}).encode())

    assert told == TOLD._replace(
        input_image_tokens=4,
        input_audio_tokens=2,
        cached_audio_tokens=cached_audio,
        output_audio_tokens=1,
    )


@pytest.mark.parametrize(
    ("cached", "images", "audio"), [(4, 0, 0), (5, 1, 0), (8, 4, 0), (9, 4, 1), (10, 4, 2)]
)
def test_cached_tokens_without_details_count_as_text_first(cached, images, audio):
    tokens = Tokens(10, cached, 0, 4, 2).normalize()

    assert (tokens.cached_image_tokens, tokens.cached_audio_tokens) == (images, audio)


def test_media_tokens_beyond_the_input_do_not_count():
    tokens = Tokens(10, 20, 3, 8, 8, 20, 20, 2, 9).normalize()

    assert tokens == Tokens(10, 10, 3, 8, 2, 8, 2, 2, 1)


def test_usage_inside_a_string_is_ignored():
    said = json.dumps({"usage": {"prompt_tokens": 99}})
    body = json.dumps({"usage": CHAT, "choices": [{"message": {"content": said}}]}).encode()

    assert parse_usage(body) == TOLD


def test_last_usage_is_parsed_however_chunks_are_cut():
    events = b'data: {"usage":null}\n\n' * 50
    events += b'data: {"choices":[],"usage":' + json.dumps(CHAT).encode() + b"}\n\ndata: [DONE]\n\n"
    tail = UsageTail()
    for start in range(0, len(events), 60):
        tail.feed(events[start : start + 60])

    assert tail.usage() == TOLD


@pytest.mark.parametrize("size", [1_000, 70_000])
def test_usage_before_long_data_is_parsed(size):
    data = [{"embedding": [0.123] * 50_000}]  # llama-server writes them after the usage
    body = json.dumps({"object": "list", "usage": CHAT, "data": data}).encode()
    tail = UsageTail()
    for start in range(0, len(body), size):
        tail.feed(body[start : start + size])

    assert tail.usage() == TOLD


def test_usage_at_the_start_of_a_stream_is_not_that_of_its_end():
    begun = b'data: {"usage":' + json.dumps(CHAT).encode() + b"}\n\n"
    tail = UsageTail(text_pattern=TEXTS)
    for piece in [begun, *[b"data: {}\n\n" * 1_000] * 20]:
        tail.feed(piece)

    assert tail.usage() is None


def test_compressed_answer_is_decoded():
    body = json.dumps({"usage": CHAT}).encode()
    tail = UsageTail(b"gzip")
    tail.feed(gzip.compress(body))
    unread = UsageTail(b"br")
    unread.feed(body)

    assert tail.usage() == TOLD
    assert unread.usage() is None


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"\x00\xff",
        b'{"usage":null}',
        b'{"usage":{"prompt_tokens":',
        b'{"usage":{}}',
        b'{"usage":{"prompt_tokens":"many"}}',
        b'{"usage":{"prompt_tokens":-1}}',
        b'{"usage":{"prompt_tokens":true}}',
        b'{"usage":{"prompt_tokens":10000000000000000000}}',
        b'{"usage":' + b'{"a":' * 10_000,
        b'{"usage":{"prompt_tokens":' + b"1" * 10_000 + b"}}",
    ],
)
def test_answer_without_usage_has_no_tokens(end):
    assert parse_usage(end) is None


TEXTS = METERED["createChatCompletion"].text_pattern


def events(*deltas: dict) -> bytes:
    return b"".join(
        b"data: %b\n\n" % json.dumps({"choices": [{"delta": delta}]}).encode() for delta in deltas
    )


@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
def test_text_of_a_stream_is_measured_however_chunks_are_cut(size: int):
    said = events(
        {"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": 'l"o'},
        {"reasoning_content": "so"}, {"tool_calls": [{"function": {"arguments": "{}"}}]},
    )  # fmt: skip
    tail = UsageTail(text_pattern=TEXTS)
    for start in range(0, len(said), size):
        tail.feed(said[start : start + size])

    assert tail.text_bytes() == len('Hell\\"oso{}')


def test_text_of_a_whole_answer_is_measured_at_its_end():
    tail = UsageTail(text_pattern=None)
    tail.feed(json.dumps({"choices": [{"message": {"content": "Hello"}}]}).encode())

    assert tail.text_bytes() == 5


def test_a_file_in_a_request_is_not_counted_as_text():
    image = b'{"url":"data:image/png;base64,%b"}' % (b"A" * 1_000_000)

    assert text_bytes(b'{"content":"hi"}') == 16
    assert text_bytes(b'"a word "' * 1000) == 9000
    assert text_bytes(image) == len(image) - 1_000_000 + 4096


def test_an_image_takes_no_more_of_a_limit_than_an_image_may():
    body = {"max_tokens": 100, "url": "data:image/png;base64," + "A" * 4_000_000}
    request = SimpleNamespace(body=body, raw_body=json.dumps(body).encode())

    assert 1100 < tokens_of(request) < 1200


def test_text_similar_to_a_data_url_is_scanned_once():
    body = (b"A" * 4095 + b" ") * 256
    began_s = time.process_time()

    assert text_bytes(body) == len(body)
    assert time.process_time() - began_s < 1  # a thousand times as long, from every byte anew


def test_negative_answer_limit_adds_no_budget():
    body = {"max_tokens": -1_000_000, "prompt": "a" * 400}
    request = SimpleNamespace(body=body, raw_body=json.dumps(body).encode())

    assert tokens_of(request) > 100


def test_cached_tokens_are_at_most_the_input_so_that_no_cost_is_negative():
    usage = {"prompt_tokens": 100, "completion_tokens": 5,
             "prompt_tokens_details": {"cached_tokens": 1000}}  # fmt: skip
    read = read_usage(usage)

    assert read == Tokens(input_tokens=100, cached_tokens=100, output_tokens=5)
    assert Tokens(100, 1000, 5).normalize() == read
