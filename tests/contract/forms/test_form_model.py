"""A form is read until it names its model, in whatever pieces it comes."""

import itertools
import time
import tracemalloc

import pytest
from starlette.requests import Request

from llm_backend.contract.forms.form_model import (
    FormHead,
    prepend_head,
    read_form_head,
    rename_form_model,
)
from llm_backend.errors import TooLarge
from llm_backend.temporary_files import TemporaryFiles

PART = b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
LIMIT_BYTES = 300_000


def request(body: bytes, size: int) -> Request:
    """A form that comes in pieces of this size."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    messages = ({"type": "http.request", "body": piece, "more_body": True} for piece in pieces)
    headers = [
        (b"content-type", b"multipart/form-data; boundary=B"),
        (b"content-length", b"%d" % len(body)),
    ]

    async def receive() -> dict:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    return Request({"type": "http", "headers": headers}, receive)


async def head_of(body: bytes, size: int, *, stored_limit_bytes: int | None = None) -> FormHead:
    """Head of a form that is read in pieces of this size."""
    http = request(body, size)
    head = await read_form_head(http, TemporaryFiles(), stored_limit_bytes=stored_limit_bytes)
    assert head is not None
    assert body.startswith(b"".join(head.pieces()))
    return head


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_pieces_may_end_anywhere(size: int):
    before = PART % (b"prompt", b'name="model"') + PART % (b"x", b"")
    body = before + PART % (b"model", b"whisper") + PART % (b"model", b"other") + b"--B--\r\n"
    head = await head_of(body, size)

    assert head.model == "whisper"
    session = before + PART % (b"session", b'{"model": "voice"}') + b"--B--\r\n"
    assert (await head_of(session, size)).requested_model == "voice"


@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize("file_bytes", [10, 200_000])
async def test_a_model_is_renamed_on_its_way(size: int, file_bytes: int):
    parts = PART % (b"file", b"s" * file_bytes), PART % (b"model", b"whisper"), b"--B--\r\n"
    http = request(b"".join(parts), size)
    head = await read_form_head(http, TemporaryFiles(), stored_limit_bytes=LIMIT_BYTES)
    assert head is not None
    changed = rename_form_model(prepend_head(http, head), head, "w")
    body = b"".join([piece async for piece in changed.stream()])
    head.close()

    assert body == b"".join(parts).replace(b"whisper", b"w")
    assert changed.headers["content-length"] == str(len(body))


async def test_a_form_without_a_model_is_replayed_whole():
    body = PART % (b"file", b"s" * 200_000) + b"--B--\r\n"
    http = request(body, 1000)
    head = await read_form_head(http, TemporaryFiles(), stored_limit_bytes=LIMIT_BYTES)
    assert head is not None

    assert head.model is None
    assert b"".join([piece async for piece in prepend_head(http, head).stream()]) == body
    head.close()


async def test_a_model_behind_a_long_file_is_found_only_if_the_form_is_stored():
    body = PART % (b"file", b"s" * 200_000) + PART % (b"model", b"whisper") + b"--B--\r\n"
    stored = await head_of(body, 1000, stored_limit_bytes=LIMIT_BYTES)
    stored.close()

    assert stored.model == "whisper"
    assert (await head_of(body, 1000)).model is None


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_form_that_is_stored_is_refused_where_it_exceeds_the_limit(has_length: bool):
    read_bytes = 0

    async def receive() -> dict:
        nonlocal read_bytes
        read_bytes += 1000
        return {"type": "http.request", "body": bytes(1000), "more_body": True}

    headers = [(b"content-type", b"multipart/form-data; boundary=B")]
    headers += [(b"content-length", b"%d" % (LIMIT_BYTES + 1))] if has_length else []
    http = Request({"type": "http", "headers": headers}, receive)
    with pytest.raises(TooLarge):
        await read_form_head(http, TemporaryFiles(), stored_limit_bytes=LIMIT_BYTES)

    assert read_bytes <= (100_000 if has_length else LIMIT_BYTES + 1000)


async def test_many_parts_in_small_pieces_are_read_once():
    begun = time.process_time()
    head = await head_of(b"--B\r\n\r\n\r\n" * 8000, 8)

    assert head.requested_model is None
    assert time.process_time() - begun < 2


async def test_parts_that_were_read_are_not_kept_in_memory():
    piece = PART % (b"x", b"a") * 1000
    pieces = itertools.repeat({"type": "http.request", "body": piece, "more_body": True}, 100)
    headers = [(b"content-type", b"multipart/form-data; boundary=B")]

    async def receive() -> dict:
        return next(pieces, {"type": "http.request", "body": b"", "more_body": False})

    http = Request({"type": "http", "headers": headers}, receive)
    tracemalloc.start()
    try:
        head = await read_form_head(http, TemporaryFiles(), stored_limit_bytes=100 * len(piece))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert head is not None
    head.close()
    assert peak_bytes < 10 * len(piece)
