"""The load client reads what a server streams, however the bytes were cut."""

import json

from benchmarks.peers.client import parse_answer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def said(text: str, reason: str | None = None) -> bytes:
    return event({"choices": [{"delta": {"content": text}, "finish_reason": reason}]})


def test_client_times_each_text_by_the_piece_that_completed_it():
    first, second = chunk(said("a")), chunk(said("b", "length"))
    pieces = [(1.0, HEAD + first[:10]), (2.0, first[10:]), (3.0, second + b"0\r\n\r\n")]

    seen = parse_answer(pieces, 0.5, 2)

    assert (seen.text, seen.arrivals, seen.tokens, seen.error) == ("ab", [1.5, 2.5], 2, None)


def test_client_reads_an_event_across_chunks_once():
    whole = said("a") + said("b", "stop")
    pieces = [(1.0, HEAD + chunk(whole[:20])), (2.0, chunk(whole[20:]) + b"0\r\n\r\n")]

    seen = parse_answer(pieces, 0.0, 8)

    assert (seen.text, seen.arrivals) == ("ab", [2.0, 2.0])


def test_client_counts_tokens_by_usage():
    usage = event({"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 5}})
    pieces = [(1.0, HEAD + chunk(said("ab", "stop") + usage) + b"0\r\n\r\n")]

    seen = parse_answer(pieces, 0.0, 8)

    assert (seen.tokens, seen.prompt_tokens) == (7, 5)


def test_client_counts_an_aborted_stream_as_failed():
    seen = parse_answer([(1.0, HEAD + chunk(said("a")))], 0.0, 8)

    assert seen.error == "the stream broke off"


def test_client_counts_a_refusal_as_failed():
    seen = parse_answer([(1.0, b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}")], 0.0, 8)

    assert seen.error == "HTTP 503"
