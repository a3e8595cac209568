"""Event-stream framing: any cutting of the bytes gives the same events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.errors import ServiceUnavailable, UpstreamFailed
from llm_backend.sse import (
    DONE,
    LONG_EVENT_BYTES,
    Decoder,
    Event,
    EventPiece,
    LineDecoder,
    encode,
    encode_error,
    split_long,
)

LINES = [
    "data: a",
    "data:b",
    "data",
    "data: é€😀",
    "event: x",
    "event:",
    ": note",
    "id: 1",
    "odd",
    "",
]
streams = st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(["\n", "\r", "\r\n"]))).map(
    lambda lines: "".join(line + end for line, end in lines).encode()
)


def events(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def by_the_standard(stream: str) -> list[Event]:
    """The WHATWG's parsing, written as it stands there."""
    found, data, name = [], "", ""
    lines = stream.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line in lines[:-1]:
        field, _, value = line.partition(":")
        if not line:
            if data:
                found.append(Event(data=data.removesuffix("\n"), name=name or None))
            data, name = "", ""
        elif field == "data":
            data += value.removeprefix(" ") + "\n"
        elif field == "event":
            name = value.removeprefix(" ")
    return found


@given(streams, st.data())
def test_decoder_follows_the_standard_for_any_chunks(stream: bytes, data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [
        stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]

    expected = by_the_standard(stream.decode())
    assert events(*pieces) == expected
    assert events(*(bytes([byte]) for byte in stream)) == expected


@given(st.text().filter(lambda text: not set(text) & set("\r\n")), st.sampled_from([None, "x"]))
def test_decoder_reads_encoded_events(text: str, name: str | None):
    assert events(encode(text.encode(), name)) == [Event(data=text, name=name)]


def test_decoder_skips_one_leading_byte_order_mark():
    assert events(b"\xef\xbb", b"\xbfdata: a\n\n") == [Event(data="a")]
    assert events(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [Event(data="a")]


def test_decoder_reads_a_split_crlf_as_one_line_end():
    assert events(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [Event(data="a\nb")]
    assert events(b"data: a\r", b"\n", b"\n") == [Event(data="a")]


def test_decoder_ignores_comments_and_incomplete_events():
    assert events(b": ping\n\n: ping\n\ndata: half") == []


def test_decoder_reads_the_end_of_a_stream_as_an_event():
    assert events(DONE) == [Event(data="[DONE]")]


def test_decoder_refuses_an_endless_event_but_not_endless_comments():
    pings = Decoder(limit_bytes=100)
    for _ in range(100):
        assert list(pings.feed(b": ping\n")) == []

    endless = Decoder(limit_bytes=100)
    list(endless.feed(b"data: x\n" * 14))
    with pytest.raises(UpstreamFailed):
        list(endless.feed(b"data: x\n"))
    with pytest.raises(UpstreamFailed):
        list(Decoder(limit_bytes=100).feed(b"x" * 101))


@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"'),
        ("/chat/completions", b'data: {"error":{"message":"busy"'),
    ],
)
def test_error_event_has_the_shape_of_its_operation(path: str, start: bytes) -> None:
    assert encode_error(path, ServiceUnavailable("busy")).startswith(start)


def test_line_decoder_reads_lines_of_any_chunks():
    decoder = LineDecoder()

    assert list(decoder.feed(b'{"a"')) == []
    assert list(decoder.feed(b': 1}\n{"b": 2}\n{')) == [
        Event(data='{"a": 1}'),
        Event(data='{"b": 2}'),
    ]


def test_errors_of_ollamas_streams_are_lines():
    assert encode_error("/api/chat", ServiceUnavailable("Full.")) == b'{"error":"Full."}\n'


@pytest.mark.parametrize("size", [10, LONG_EVENT_BYTES, LONG_EVENT_BYTES + 300_000])
def test_long_events_are_split_to_pieces(size):
    event = encode(b"a" * (size - len(encode(b""))))

    pieces = list(split_long(event))

    assert b"".join(pieces) == event
    assert max(map(len, pieces)) <= LONG_EVENT_BYTES
    is_long = size > LONG_EVENT_BYTES
    assert {type(piece) for piece in pieces} == {EventPiece if is_long else bytes}
