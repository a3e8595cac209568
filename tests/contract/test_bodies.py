"""Invalid bodies are refused with a 4xx that names the problem, never with a 500."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from llm_backend.contract.body import BodyLimits, parse_json, read_body
from llm_backend.errors import ClientGone, InvalidRequest

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
GOOD = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def nested(levels: int) -> bytes:
    inner = b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)
    return GOOD[:-1] + b', "vendor_field": ' + inner + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{} {}",
        b"\xff\xfe",
        b"\x00",
        b'{"model": NaN}',
        b'{"model": Infinity}',
        b'{"model": 1e400}',
        b'{"model": "\\ud800"}',
        b'{"model": "\xed\xa0\x80"}',
        b"[" * 100_000,
        GOOD.decode().encode("utf-16"),
    ],
)
def test_invalid_json_is_refused(client: TestClient, body: bytes):
    response = client.post(CHAT, content=body, headers=JSON)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_the_position_of_a_byte_that_is_not_utf_8_is_named(client: TestClient):
    body = b'{"model": "caf\xe9"}'

    message = client.post(CHAT, content=body, headers=JSON).json()["error"]["message"]

    assert message == "The body is not valid JSON: it is not UTF-8, at byte 14."


@pytest.mark.parametrize("body", [b"", None])
def test_a_missing_body_is_refused(client: TestClient, body: bytes | None):
    response = client.post(CHAT, content=body, headers=JSON)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "missing_body"


def test_a_body_that_may_be_missing_may_be_missing(client: TestClient):
    assert client.post("/v1/threads").json()["body"] is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": "a\\u0000b"}', "model"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\u0000"}]}', "content"),
        (b'{"model": "m", "a\\u0000": 1}', "a?"),
    ],
)
def test_nul_characters_are_refused_by_name(client: TestClient, body: bytes, param: str):
    response = client.post(CHAT, content=body, headers=JSON)

    assert response.status_code == 400
    assert response.json()["error"]["param"].endswith(param)
    assert "NUL" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        ("response_format", "json_schema", "schema", "properties", "a", "pattern"),
        ("text", "format", "schema", "enum"),
        ("tools", "function", "parameters", "a\0"),
        ("tools", "input_schema", "const"),
        ("functions", "parameters", "pattern"),
        ("format", "pattern"),
    ],
)
def test_nul_characters_in_schemas_have_the_code_of_schemas(path: tuple[str, ...]):
    value: object = "\0"
    for name in reversed(path):
        value = [{name: value}]

    with pytest.raises(InvalidRequest) as refused:
        parse_json(json.dumps(value).encode()[1:-1], BodyLimits())

    assert refused.value.code == "invalid_json_schema"


def test_nul_characters_elsewhere_have_the_code_of_values():
    for body in ({"tools": [{"name": "\0"}]}, {"metadata": {"schema": "\0"}}):
        with pytest.raises(InvalidRequest) as refused:
            parse_json(json.dumps(body).encode(), BodyLimits())

        assert refused.value.code == "invalid_value"


@pytest.mark.parametrize("field", ["messages", "input", "items"])
def test_nul_characters_of_answers_are_replaced(field: str):
    said = {"role": "assistant", "content": [{"type": "text", "text": "a\0b"}]}
    call = {"type": "function_call", "arguments": "\0"}
    body = json.dumps({field: [said, call]}).encode()

    value = parse_json(body, BodyLimits())

    assert value == {
        field: [
            {"role": "assistant", "content": [{"type": "text", "text": "a\ufffdb"}]},
            {"type": "function_call", "arguments": "\ufffd"},
        ]
    }


def test_a_chat_goes_on_after_an_answer_with_a_nul_character(client: TestClient):
    said = {"role": "assistant", "content": "\0"}
    more = json.loads(GOOD)["messages"]
    body = json.dumps({"model": "m", "messages": [*more, said, *more]}).encode()

    assert client.post(CHAT, content=body, headers=JSON).status_code == 200


def test_an_escaped_backslash_before_u0000_is_no_nul(client: TestClient):
    body = GOOD.replace(b"Hello", b"\\\\u0000")

    assert client.post(CHAT, content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize(("levels", "status"), [(99, 200), (100, 400), (900, 400)])
def test_nesting_is_bounded(client: TestClient, levels: int, status: int):
    assert client.post(CHAT, content=nested(levels), headers=JSON).status_code == status


def test_brackets_in_strings_are_not_nesting(client: TestClient):
    body = GOOD.replace(b"Hello", b"[" * 1000)

    assert client.post(CHAT, content=body, headers=JSON).status_code == 200


def test_duplicate_keys_take_the_last_value(client: TestClient):
    body = GOOD[:-1] + b', "model": "n"}'

    assert client.post(CHAT, content=body, headers=JSON).json()["body"]["model"] == "n"


def test_huge_integers_are_numbers(client: TestClient):
    body = GOOD[:-1] + b', "vendor_field": 123456789012345678901234567890}'

    assert client.post(CHAT, content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a" * 10_000, ""],
)
def test_other_content_types_are_refused(client: TestClient, content_type: str):
    response = client.post(CHAT, content=GOOD, headers={"content-type": content_type})

    assert response.status_code == 415
    assert response.json()["error"]["code"] == "unsupported_media_type"
    assert len(response.json()["error"]["message"]) < 300


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "application/json ; charset=utf-8", "Application/JSON"],
)
def test_json_may_be_spelt_in_several_ways(client: TestClient, content_type: str):
    response = client.post(CHAT, content=GOOD, headers={"content-type": content_type})

    assert response.json()["body"]["model"] == "m"


def test_json_is_assumed_without_a_content_type(client: TestClient):
    request = client.build_request("POST", CHAT, content=GOOD)
    request.headers.pop("content-type", None)

    assert client.send(request).json()["body"]["model"] == "m"


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("identity", 200)])
def test_compressed_bodies_are_refused(client: TestClient, encoding: str, status: int):
    body = gzip.compress(GOOD) if encoding == "gzip" else GOOD

    response = client.post(CHAT, content=body, headers={**JSON, "content-encoding": encoding})

    assert response.status_code == status


def test_a_body_over_the_limit_is_refused_by_its_length(client: TestClient):
    body = GOOD.replace(b"Hello", b"a" * 200_000)

    response = client.post(CHAT, content=body, headers=JSON)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_chunked_body_over_the_limit_is_refused(client: TestClient):
    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield b"a" * 1000

    assert client.post(CHAT, content=chunks(), headers=JSON).status_code == 413


def test_a_chunked_body_is_read_to_its_end(client: TestClient):
    response = client.post(CHAT, content=iter([GOOD[:20], GOOD[20:]]), headers=JSON)

    assert response.json()["raw_bytes"] == len(GOOD)


def test_forms_that_are_relayed_pass_unread(client: TestClient):
    response = client.post("/v1/videos", files={"input_reference": b"x" * 250_000})

    assert response.json()["raw_bytes"] == 0
    assert response.json()["rest_bytes"] > 250_000


@pytest.mark.parametrize("is_announced", [True, False])
def test_uploads_have_a_limit_of_their_own(client: TestClient, is_announced: bool):
    content = b"x" * 500_000 if is_announced else iter([b"x" * 250_000] * 2)

    response = client.post(
        "/v1/videos",
        content=content,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )

    assert response.status_code == 413


def test_a_body_of_exactly_the_limit_is_accepted(client_for):
    with client_for(limits=BodyLimits(json_bytes=len(GOOD))) as client:
        assert client.post(CHAT, content=GOOD, headers=JSON).status_code == 200
        assert client.post(CHAT, content=GOOD + b" ", headers=JSON).status_code == 413


def test_relayed_bodies_are_validated_unless_the_setting_is_off(client_for):
    with client_for(check_relayed=True) as checking, client_for(check_relayed=False) as trusting:
        assert checking.post("/v1/videos", json={"prompt": 5}).status_code == 400
        assert trusting.post("/v1/videos", json={"prompt": 5}).status_code == 200
        assert trusting.post(CHAT, json={"model": 5}).status_code == 400


def test_beta_bodies_are_the_upstreams_matter(client: TestClient):
    assert client.post("/v1/responses?beta=true", json={"model": 5}).status_code == 200


async def test_a_disconnect_within_the_body_is_client_gone():
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True},
                     {"type": "http.disconnect"}])  # fmt: skip

    async def receive() -> Any:
        return next(messages)

    with pytest.raises(ClientGone):
        await read_body(receive)
