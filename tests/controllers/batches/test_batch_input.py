"""Inputs of batches: lines found in pieces of any size, and what is wrong with them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.contract.body import BodyLimits
from llm_backend.controllers.batches.batch_input import CHUNK_LINES, InputCheck, LineSplitter

ENDPOINT = "/v1/embeddings"
DEFAULTS = BodyLimits()
GOOD = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": {"model": "m"}}


def line(**changes: Any) -> bytes:
    return json.dumps(
        {name: value for name, value in (GOOD | changes).items() if value is not ...}
    ).encode()


def checked(
    text: bytes,
    *,
    lines_limit: int = 1000,
    line_limit_bytes: int = 1000,
    body_limits: BodyLimits = DEFAULTS,
) -> InputCheck:
    check = InputCheck(
        ENDPOINT,
        lines_limit=lines_limit,
        line_limit_bytes=line_limit_bytes,
        body_limits=body_limits,
    )
    check.feed(text)
    check.finish()
    return check


def split(text: bytes, sizes: list[int], limit_bytes: int = 1000) -> list[tuple[int, bytes | None]]:
    splitter, found = LineSplitter(limit_bytes), []
    for size in sizes:
        found += splitter.feed(text[:size])
        text = text[size:]
    found += [*splitter.feed(text), *splitter.finish()]
    return [(one.number, one.text) for one in found]


@given(st.lists(st.integers(0, 9), max_size=20))
def test_lines_are_the_same_however_the_bytes_come(sizes):
    text = b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"b": "\xc3\xbc"}\nlong' + b"g" * 20 + b"\n{}"

    found = split(text, sizes, limit_bytes=16)

    assert found == [(1, b'{"a": 1}\r'), (4, b'{"b": "\xc3\xbc"}'), (5, None), (6, b"{}")]


def test_chunks_have_the_byte_offsets_of_their_lines():
    text = b"\n".join([b"", *(line(custom_id=str(n)) for n in range(2 * CHUNK_LINES + 1))])
    check = checked(text)
    found = []
    for chunk in check.chunks:
        splitter = LineSplitter(1000, start=chunk.start, first_line=chunk.first_line)
        found += [*splitter.feed(text[chunk.start : chunk.end]), *splitter.finish()]
        assert (found[-1].number, found[-1].end) == (chunk.last_line, chunk.end)

    assert check.errors == []
    assert (check.total, len(check.chunks)) == (2 * CHUNK_LINES + 1, 3)
    assert [one.number for one in found] == list(range(2, 2 * CHUNK_LINES + 3))
    assert all(text[one.start : one.end] == one.text for one in found)


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b'"\xff"', "invalid_json_line", None),
        (line(custom_id=...), "missing_required_parameter", "custom_id"),
        (line(body=...), "missing_required_parameter", "body"),
        (line(custom_id=7), "invalid_custom_id", "custom_id"),
        (line(custom_id="good"), "duplicate_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/responses"), "url_mismatch", "url"),
        (line(body=[]), "invalid_body", "body"),
        (line(custom_id="x" * 1000), "line_too_long", None),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(bad, code, param):
    check = checked(b"\n".join([line(custom_id="good"), b"", bad]))

    (error,) = check.errors
    assert (error["code"], error["param"], error["line"]) == (code, param, 3)
    assert error["message"].endswith(".")


@pytest.mark.parametrize("text", [b"", b"\n \n"])
def test_a_file_without_lines_cannot_be_used(text):
    assert [error["code"] for error in checked(text).errors] == ["empty_file"]


def test_the_number_of_lines_is_bounded():
    text = b"\n".join(line(custom_id=str(number)) for number in range(4))

    assert checked(text, lines_limit=4).errors == []
    (error,) = checked(text, lines_limit=3).errors
    assert (error["code"], error["line"]) == ("too_many_tasks", None)


def test_a_file_of_another_kind_is_not_read_to_its_end():
    check = checked(b"no\n" * 1000)

    assert check.is_hopeless
    assert len(check.errors) == 100


def test_a_batch_has_a_model_if_all_lines_name_it():
    one, other = line(custom_id="1"), line(custom_id="2", body={"model": "other"})

    assert checked(one).model == "m"
    assert checked(one + b"\n" + other).model is None
    assert checked(line(body={})).model is None


def test_a_model_that_no_column_can_hold_is_not_the_batchs():
    assert checked(line(body={"model": "m\0"})).model is None


def test_a_line_has_the_limits_of_a_request():
    text = line(body={"model": "m", "input": ["a"] * 50}) + b"\n"

    assert checked(text).errors == []
    (error,) = checked(text, body_limits=BodyLimits(json_nodes=20)).errors
    assert error["code"] == "line_too_long"
