import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.messages import TokenLogprob
from llm_backend.engine.output.text_stream import TextStream


def token(number: int) -> TokenLogprob:
    return TokenLogprob(token=number, bytes=b"", logprob=-1.0)


def push_all(stream: TextStream, pieces: list[bytes]) -> tuple[str, str | None]:
    """All text that comes of pieces, and the stop string that ended it."""
    text = ""
    for piece in pieces:
        released = stream.push(piece)
        text += released.text
        if released.stop is not None:
            return text, released.stop
    released = stream.finish()
    return text + released.text, released.stop


def test_text_stream_releases_a_character_with_its_last_byte():
    stream = TextStream([])

    assert [stream.push(bytes([byte])).text for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_text_stream_flushes_an_unfinished_character_at_the_end():
    stream = TextStream([])
    stream.push("a€".encode()[:-1])

    assert stream.finish().text == "\ufffd"


def test_text_stream_cuts_before_a_stop_string_across_tokens():
    stream = TextStream(["END"])

    assert push_all(stream, [b"one E", b"N", b"D two"]) == ("one ", "END")


def test_text_stream_releases_a_partial_stop_string_that_does_not_match():
    stream = TextStream(["END"])

    assert [stream.push(piece).text for piece in (b"a E", b"N", b"X")] == ["a ", "", "ENX"]


def test_text_stream_stops_at_the_stop_string_that_begins_first():
    assert push_all(TextStream(["cd", "bcde", "b"]), [b"abcdef"]) == ("a", "bcde")


def test_text_stream_ignores_an_empty_stop_string():
    assert push_all(TextStream([""]), [b"a", b"b"]) == ("ab", None)


def test_text_stream_releases_logprobs_with_their_text():
    stream = TextStream(["END"])

    assert stream.push(b"a", token(1)).logprobs == [token(1)]
    assert stream.push(b" E", token(2)).logprobs == []
    assert stream.push(b"x", token(3)).logprobs == [token(2), token(3)]


def test_text_stream_releases_logprobs_of_a_split_character_together():
    stream = TextStream([])
    first, second = "é".encode()[:1], "é".encode()[1:]

    assert stream.push(first, token(1)).logprobs == []
    assert stream.push(second, token(2)).logprobs == [token(1), token(2)]


def test_text_stream_omits_logprobs_of_a_stop_string():
    stream = TextStream(["END"])
    stream.push(b"a E", token(1))
    released = stream.push(b"ND", token(2))

    assert (released.text, released.stop, released.logprobs) == ("", "END", [token(1)])


def test_text_stream_releases_the_logprob_of_a_token_without_text():
    assert TextStream(["x"]).push(b"", token(1)).logprobs == [token(1)]


@given(text=st.text(max_size=40), cuts=st.lists(st.integers(0, 120)), stops=st.lists(st.text()))
def test_text_stream_releases_the_text_before_the_first_stop_string_at_any_chunking(
    text, cuts, stops
):
    data = text.encode()
    offsets = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(offsets)]
    found = [text.find(stop) for stop in stops if stop and stop in text]

    result, _ = push_all(TextStream(stops), pieces)

    # A stop string is only seen once it is complete: another that began earlier may end later.
    expected = text[: min(found)] if found else text
    assert result == expected or (found and result in {text[:offset] for offset in found})


@given(st.lists(st.binary(max_size=3), max_size=20))
def test_text_stream_releases_every_logprob_once(pieces):
    stream = TextStream(["ab"])
    given_, stopped = [], False
    for number, piece in enumerate(pieces):
        released = stream.push(piece, token(number))
        given_ += released.logprobs
        if released.stop:
            stopped = True
            break
    if not stopped:
        given_ += stream.finish().logprobs
        assert given_ == [token(number) for number in range(len(pieces))]
    assert given_ == sorted(given_, key=lambda item: item.token)


@pytest.mark.parametrize("stop", ["\n", "\n\n", "</s>"])
def test_text_stream_buffers_little_text(stop):
    stream = TextStream([stop])
    text = "".join(stream.push(piece).text for piece in [b"some text"] * 100)

    assert len(text) > 900 - len(stop)
