"""An event that is like another says what reading it says, or is not taken for one."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.controllers.relay.chat_observer import EventTemplate


def chunk_of(text: str, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "model": "m", "choices": [choice], **more}


def line_of(chunk: object) -> bytes:
    return b"data: " + orjson.dumps(chunk)


def event_template_of(chunk: dict[str, object]) -> EventTemplate:
    event_template = EventTemplate.of(line_of(chunk), chunk)
    assert event_template is not None
    return event_template


@given(first=st.text(), text=st.text(), more=st.dictionaries(st.text(), st.text(), max_size=2))
def test_the_text_of_a_similar_event_is_extracted(first: str, text: str, more: dict[str, str]):
    more = {name: value for name, value in more.items() if name not in ("id", "model", "choices")}
    chunk = chunk_of(first, **more)

    event_template = EventTemplate.of(line_of(chunk), chunk)

    assert event_template is None or event_template.text_of(line_of(chunk_of(text, **more))) == text


@given(inside=st.binary(max_size=12) | st.sampled_from([b'"', b'","a":"', b"\\", b'\\"', b"\n"]))
def test_bytes_that_are_no_json_string_are_not_extracted(inside: bytes):
    event_template = event_template_of(chunk_of("a"))
    event = line_of(chunk_of("A")).replace(b'"A"', b'"' + inside + b'"')

    told = event_template.text_of(event)

    try:
        said = orjson.loads(event[6:])["choices"][0]["delta"] if b"\n" not in event else None
    except orjson.JSONDecodeError:
        said = None
    assert told is None or said == {"content": told}


@pytest.mark.parametrize(
    "event",
    [
        line_of(chunk_of("a", id="d")),
        line_of(chunk_of("a", usage=None)),
        line_of(chunk_of("a"))[:-1],
        line_of(chunk_of("")).replace(b'"content":""', b'"content":"'),
        b": ping",
        b"",
    ],
)
def test_an_event_with_other_fields_is_not_similar(event: bytes):
    assert event_template_of(chunk_of("a")).text_of(event) is None


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"choices":[{"delta":{"content":\t"a"}}]}',
        b'data:{"choices":[{"delta":{"content":"a"}}]}',
        b'data: {"choices":[{"delta":{"content":"a"}}],"x":"\xff"}',
        b'data: {"choices":[{"delta":{"content":"a"}}],"x":"' + b" " * 4096 + b'"}',
    ],
)
def test_ambiguous_events_have_no_template(line: bytes):
    chunk = orjson.loads(line[5:].decode(errors="replace"))

    assert EventTemplate.of(line, chunk) is None


def test_another_field_with_that_name_is_not_the_text():
    chunk = chunk_of("a", annotations={"content": "b"})

    assert EventTemplate.of(line_of(chunk), chunk) is None
