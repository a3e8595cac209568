"""Requests whose path names the model reach the application with a body that names it."""

import json

import httpx
import pytest

from llm_backend.contract.application.envelope import Envelope


async def sent_body(*pieces: bytes, path: str = "/v1/engines/a%2Fb/completions") -> bytes:
    """The body that the application gets for one in these pieces, at `/completions`."""
    sent_path, body = await sent(*pieces, path=path)

    assert sent_path == "/completions"
    return body


async def sent(*pieces: bytes, path: str) -> tuple[str, bytes]:
    """The path and the body that the application gets for a body in these pieces."""
    bodies, lengths = [], []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            bodies.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        lengths.append(int(dict(scope["headers"])[b"content-length"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def content():
        for piece in pieces:
            yield piece

    length = {"content-length": str(sum(map(len, pieces)))}
    transport = httpx.ASGITransport(Envelope(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.post(path, content=content(), headers=length)

    body = b"".join(bodies)
    if body.lstrip().startswith(b"{"):
        assert lengths == [len(body)]
    return answer.text, body


@pytest.mark.parametrize(
    "body", ["{}", " { } ", "{\n}\n", '{"prompt": "{}"}', '{ "a": {} }', '{"a":[{}],"b":"}"}']
)
@pytest.mark.parametrize("size", [1, 2, 100])
async def test_the_model_of_the_path_is_a_field_of_any_object(body, size):
    pieces = [body[start : start + size].encode() for start in range(0, len(body), size)]

    assert json.loads(await sent_body(*pieces)) == {"model": "a/b", **json.loads(body)}


@pytest.mark.parametrize("body", ["[{}]", '"{}"', "[]", "", "1"])
async def test_a_body_that_is_no_object_is_left_as_it_is(body):
    assert (await sent_body(body.encode())).decode() == body


@pytest.mark.parametrize(
    ("path", "path_today", "model"),
    [
        ("/v1/engines/m/chat/completions", "/chat/completions", "m"),
        ("/v1/models/a%2Fb/chat/completions", "/chat/completions", "a/b"),
        ("/engines/chat/completions", "/completions", "chat"),
        ("/v1/engines/m/embeddings", "/embeddings", "m"),
    ],
)
async def test_model_of_a_path_is_the_part_before_the_operation(path, path_today, model):
    sent_path, body = await sent(b"{}", path=path)

    assert (sent_path, json.loads(body)) == (path_today, {"model": model})


async def test_the_model_of_a_body_is_left_to_the_body():
    body = await sent_body(b'{"model": "c"}')

    assert json.loads(body) == {"model": "c"}
