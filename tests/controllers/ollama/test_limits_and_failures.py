"""Limits, deadlines and failures in the shape of Ollama's API."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.controllers.relay.bridge.test_bridge import HEAD, chat_says, chunk
from tests.gateway import backend, gateway
from tests.image_server import FakeImageServer
from tests.upstream import Connection, FakeUpstream, Message, post

HELLO: Any = {"model": "far", "messages": [{"role": "user", "content": "Hi"}]}


async def test_whole_answer_has_nothing_of_a_step_that_broke_off(tmp_path: Path) -> None:
    said = b"data: %b\n\n" % json.dumps(chunk({"content": "Hel"})).encode()
    whole = chat_says({"role": "assistant"}, {"content": "Good day"})
    async with FakeUpstream(answer=HEAD + said) as broken, FakeUpstream(answer=whole) as sound:
        backends = [backend(broken, "a", "one", wire="chat"), backend(sound, "b", wire="chat")]
        routes = {"far": "one, two"}
        async with gateway(tmp_path, backends=backends, routes=routes) as served:
            body = json.dumps({**HELLO, "stream": False}).encode()
            answer = await served.ask(post(body, path="/api/chat"))

    assert json.loads(answer.body)["message"]["content"] == "Good day"


async def lines_of(fake: FakeUpstream, tmp_path: Path, requests: int, **settings: Any) -> list[Any]:
    """Status and lines of the last of some chats, with a gateway in front of the fake."""
    async with fake:
        backends = [backend(fake, "a", wire="chat")]
        async with (
            gateway(
                tmp_path, backends=backends, allowed_hosts=("127.0.0.1",),
                response_validation="enforce", **settings,
            ) as served,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", timeout=30) as client,
        ):  # fmt: skip
            for _ in range(requests):
                answer = await client.post("/api/chat", json=HELLO)
    return [answer.status_code, *map(json.loads, answer.text.splitlines())]


async def test_rate_limits_hold(tmp_path: Path) -> None:
    fake = FakeUpstream(answer=chat_says({"role": "assistant"}, {"content": "Hello"}))

    status, error = await lines_of(fake, tmp_path, 2, requests_per_minute=1)

    assert status == 429
    assert set(error) == {"error"}
    assert len(fake.requests) == 1


async def begins_and_stalls(_request: Message, connection: Connection) -> None:
    data = json.dumps(chunk({"content": "Hel"})).encode()
    await connection.send(HEAD + b"data: %b\n\n" % data)
    await asyncio.Event().wait()


async def test_deadline_ends_a_stream_with_a_line(tmp_path: Path) -> None:
    fake = FakeUpstream(answer=begins_and_stalls)

    status, first, last = await lines_of(fake, tmp_path, 1, run_deadline_s=0.5)

    assert (status, first["message"]["content"]) == (200, "Hel")
    assert "deadline of 0.5 s" in last["error"]


async def test_upstream_that_breaks_off_ends_a_stream_with_a_line(tmp_path: Path) -> None:
    said = b"data: %b\n\n" % json.dumps(chunk({"content": "Hel"})).encode()

    status, first, last = await lines_of(FakeUpstream(answer=HEAD + said), tmp_path, 1)

    assert (status, first["done"]) == (200, False)
    assert "broke off" in last["error"]


@pytest.mark.parametrize(
    ("path", "given"), [("/api/embed", {"input": "Hi"}), ("/api/embeddings", {"prompt": "Hi"})]
)
@pytest.mark.parametrize("status", [400, 404, 413])
async def test_embeddings_that_an_upstream_refuses_are_refused_without_fallback(
    tmp_path: Path, path: str, given: Any, status: int
) -> None:
    refusal = b'{"error":{"message":"The text is too long."}}'
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    first = FakeUpstream(answer=head % (status, len(refusal)) + refusal)
    async with first, FakeUpstream() as second:
        backends = [backend(first, "a", "one"), backend(second, "b", "two")]
        async with gateway(tmp_path, backends=backends, routes={"far": "one, two"}) as served:
            body = json.dumps({"model": "far", **given}).encode()
            answer = await served.ask(post(body, path=path))

    assert (answer.status, json.loads(answer.body)) == (status, {"error": "The text is too long."})
    assert (len(first.requests), second.requests) == (1, [])


async def test_embeddings_fall_back_from_an_upstream_that_rejects_the_key(tmp_path: Path) -> None:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    vectors = b'{"data":[{"index":0,"embedding":[0.6,0.8]}]}'
    rejecting = FakeUpstream(answer=head % (b"401 X", 2) + b"{}")
    sound = FakeUpstream(answer=head % (b"200 OK", len(vectors)) + vectors)
    async with rejecting, sound:
        backends = [backend(rejecting, "a", "one"), backend(sound, "b", "two")]
        async with gateway(tmp_path, backends=backends, routes={"far": "one, two"}) as served:
            body = json.dumps({"model": "far", "input": "Hi"}).encode()
            answer = await served.ask(post(body, path="/api/embed"))

    assert json.loads(answer.body)["embeddings"] == [[0.6, 0.8]]


async def test_models_are_listed_beside_a_route_that_draws(tmp_path: Path) -> None:
    painter = FakeImageServer()
    async with FakeUpstream(answer=chat_says({"role": "assistant"})) as far, painter:
        backends = [backend(far, "a", "far", wire="chat"), painter.backend()]
        routes = {"drawer": "sd1@painter", "chatter": "far"}
        async with gateway(tmp_path, backends=backends, routes=routes) as served:
            answer = await served.ask(b"GET /api/tags HTTP/1.1\r\nhost: relay\r\n\r\n")

    assert answer.status == 200
    assert "chatter" in [one["name"] for one in json.loads(answer.body)["models"]]
    assert b"drawer" not in answer.body


async def test_schema_is_not_strict_at_an_upstream(tmp_path: Path) -> None:
    fake = FakeUpstream(answer=chat_says({"role": "assistant"}, {"content": "{}"}))
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    async with fake:
        backends = [backend(fake, "a", wire="chat")]
        async with gateway(tmp_path, backends=backends) as served:
            body = json.dumps({**HELLO, "format": schema}).encode()
            await served.ask(post(body, path="/api/chat"))

    form = json.loads(fake.requests[-1].body)["response_format"]["json_schema"]
    assert form["schema"] == schema
    assert not form["strict"]
