"""Bounds of bodies before parsing: number of values and bytes of text, not size alone."""

import json

import pytest
from starlette.testclient import TestClient

from llm_backend.contract.body import BodyLimits
from llm_backend.contract.body_bounds import check_size, text_bytes
from llm_backend.errors import TooLarge

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"


def chat(content: object, **more: object) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return json.dumps(body).encode()


def is_within(body: bytes, *, nodes: int = 1000, text: int = 2**30) -> bool:
    try:
        check_size(body, nodes_limit=nodes, text_limit_bytes=text)
    except TooLarge:
        return False
    return True


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b",".join([b"1"] * 1001) + b"]",
        b"[" * 501 + b"]" * 501 + b"," * 501,
        b'{"a":' * 501 + b"1" + b"}" * 501,
        b"{" + b",".join(b'"%d":1' % key for key in range(501)) + b"}",
        b'["\\\\",' + b",".join([b'"\\""'] * 1001) + b"]",
    ],
)
def test_values_and_names_are_counted(body: bytes):
    assert not is_within(body)
    assert is_within(body, nodes=20_000)


@pytest.mark.parametrize(
    "text",
    [
        "a, b: [c] {d}" * 1000,
        '\\",' * 9000,
        "\\" * 9000 + '",' * 9000,
        "\\\\, {" * 4096 + "\\",
    ],
)
def test_marks_in_texts_are_no_values(text: str):
    assert is_within(chat(text), nodes=20)
    assert is_within(json.dumps([text] * 10).encode(), nodes=20)


@pytest.mark.parametrize("body", [b'{"a' + b"," * 2000, b'["\\', b'["' + b"\\" * 2001, b"," * 99])
def test_bounds_ignore_invalid_json(body: bytes):
    assert is_within(body + b'"')
    assert is_within(body)


def test_files_in_base64_are_no_text():
    image = "data:image/png;base64," + "A" * 1_000_000

    assert is_within(chat(image), text=10_000)
    assert not is_within(chat("é " * 10_000), text=10_000)
    assert not is_within(chat(image + " word" * 10_000), text=10_000)


@pytest.mark.parametrize("size", [4095, 4096, 4097, 6143, 10_000])
@pytest.mark.parametrize("before", [0, 1, 2047, 2048, 5000])
def test_a_file_is_counted_alike_wherever_it_begins(size: int, before: int):
    body = b"? " * before + b"A" * size + b" ? " + b"A" * size + b"!"

    assert text_bytes(body) == len(body) - 2 * max(0, size - 4096)


def test_a_request_of_too_many_values_is_refused_with_the_setting(client_for):
    limits = BodyLimits(json_nodes=500)
    with client_for(limits=limits) as client:
        response = client.post(CHAT, content=chat(["x"] * 501), headers=JSON)

    assert response.status_code == 413
    assert "json_nodes_limit" in response.json()["error"]["message"]


@pytest.mark.parametrize("size", [100, 100_000])
def test_small_and_large_bodies_are_refused_alike(client: TestClient, size: int):
    def code(body: bytes) -> str:
        return client.post(CHAT, content=body, headers=JSON).json()["error"]["code"]

    text = "a" * size
    assert code(chat(text)[:-1]) == "invalid_json"
    assert code(chat(text, n="many")) == "invalid_type"
    assert code(chat(text + "\0")) == "invalid_value"
