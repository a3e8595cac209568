"""A form is read until it names its model, in whatever pieces it comes."""

import time

import pytest
from starlette.requests import Request

from llm_backend.contract.forms.form_model import FormHead, read_form_head

PART = b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'


async def head_of(body: bytes, size: int) -> FormHead:
    """Head of a form that is read in pieces of this size."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    messages = ({"type": "http.request", "body": piece, "more_body": True} for piece in pieces)
    headers = [(b"content-type", b"multipart/form-data; boundary=B")]

    async def receive() -> dict:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    head = await read_form_head(Request({"type": "http", "headers": headers}, receive))
    assert head is not None
    assert body.startswith(head.read)
    return head


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_pieces_may_end_anywhere(size: int):
    before = PART % (b"prompt", b'name="model"') + PART % (b"x", b"")
    body = before + PART % (b"model", b"whisper") + PART % (b"model", b"other") + b"--B--\r\n"
    head = await head_of(body, size)

    assert head.model == "whisper"
    assert head.replace_model("w") == head.read.replace(b"whisper", b"w")
    session = before + PART % (b"session", b'{"model": "voice"}') + b"--B--\r\n"
    assert (await head_of(session, size)).requested_model == "voice"


async def test_many_parts_in_small_pieces_are_read_once():
    begun = time.process_time()
    head = await head_of(b"--B\r\n\r\n\r\n" * 8000, 8)

    assert head.requested_model is None
    assert time.process_time() - begun < 2
