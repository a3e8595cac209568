"""Responses that an upstream answers in the background are counted once, when it reports them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_backend.controllers.responses.response_observer import ResponseObserver
from tests.controllers.administration.conftest import Client, served
from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message, post

USAGE = {"input_tokens": 100, "output_tokens": 50,
         "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 0},
         "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 150}  # fmt: skip
QUEUED = {"id": "resp_far", "object": "response", "created_at": 1, "model": "gpt-x",
          "status": "queued", "background": True, "output": [], "usage": None,
          "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
ENDED = {**QUEUED, "status": "completed", "usage": USAGE}
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ASKED: Any = {"model": "gpt-x", "input": "Hi", "background": True}


def whole(response: dict[str, Any]) -> bytes:
    body = json.dumps(response).encode()
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def event(kind: str, **more: Any) -> bytes:
    said = {"type": f"response.{kind}", "sequence_number": 0, **more}
    return b"event: response.%b\ndata: %b\n\n" % (kind.encode(), json.dumps(said).encode())


def events() -> bytes:
    return STREAM + event("queued", response=QUEUED) + event("completed", response=ENDED)


async def takes_its_time(request: Message, connection: Connection) -> None:
    """Is not done when it is asked first, and is whenever it is asked again."""
    line = request.first_line
    if line.startswith(b"POST /v1/responses HTTP"):
        await connection.send(events() if b'"stream"' in request.body else whole(QUEUED))
    else:
        await connection.send(events() if b"stream=true" in line else whole(ENDED))


@asynccontextmanager
async def clients(folder: Path) -> AsyncIterator[Client]:
    async with (
        FakeUpstream(answer=takes_its_time) as fake,
        served(folder, backends=[backend(fake, "far")]) as client,
    ):
        yield client


async def used(client: openai.AsyncOpenAI) -> list[tuple[str | None, int, int, int, int]]:
    """By key: requests, input, cached and output tokens."""
    told = await client.admin.organization.usage.completions(
        start_time=int(time.time()) - 120, group_by=["api_key_id"]
    )
    return [
        (one.api_key_id, one.num_model_requests, one.input_tokens, one.input_cached_tokens or 0,
         one.output_tokens)
        for bucket in told.data
        for one in bucket.results
    ]  # fmt: skip


async def retrieved(client: openai.AsyncOpenAI) -> None:
    await client.responses.retrieve("resp_far")


async def streamed(client: openai.AsyncOpenAI) -> None:
    async for _ in await client.responses.retrieve("resp_far", stream=True):
        pass


async def cancelled(client: openai.AsyncOpenAI) -> None:
    await client.responses.cancel("resp_far")


@pytest.mark.parametrize("asks", [retrieved, streamed, cancelled])
async def test_deferred_usage_is_charged_once_to_the_creator(
    tmp_path: Path, asks: Callable[[openai.AsyncOpenAI], Awaitable[None]]
):
    async with clients(tmp_path) as client:
        projects = client().admin.organization.projects
        account = await projects.service_accounts.create("proj_default", name="app")
        assert account.api_key is not None
        await client(account.api_key.value).responses.create(**ASKED)
        before = await used(client())
        for _ in range(2):
            await asks(client())
        after = await used(client())

    key_id = account.api_key.id
    assert before == [(key_id, 1, 0, 0, 0)]
    assert after == [(key_id, 1, 100, 40, 50)]


async def test_one_that_was_followed_to_its_end_counts_there_and_not_again(tmp_path: Path):
    async with clients(tmp_path) as client:
        async for _ in await client().responses.create(**ASKED, stream=True):
            pass
        await retrieved(client())
        ((_, *counted),) = await used(client())

    assert counted == [1, 100, 40, 50]


async def test_deferred_usage_after_a_disconnect_is_charged_when_reported(tmp_path: Path):
    async def endless(request: Message, connection: Connection) -> None:
        if request.first_line.startswith(b"GET"):
            await connection.send(whole(ENDED))
            return
        await connection.send(STREAM + event("in_progress", response=QUEUED))
        for _ in "123":
            await connection.send(event("output_text.delta", delta="four four four "))
        await asyncio.Event().wait()

    body = json.dumps({**ASKED, "stream": True}).encode()
    async with (
        FakeUpstream(answer=endless) as fake,
        gateway(tmp_path, backends=[backend(fake, "far")]) as relay,
    ):
        async with relay.client() as leaving:
            await leaving.send(post(body, path="/v1/responses"))
            for _ in "123":
                await leaving.reader.readuntil(b"four four")
            leaving.cut()
        async with asyncio.timeout(60):
            while True:
                early = await relay_used(relay)
                if [one[0] for one in early] == [1]:
                    break
                await asyncio.sleep(0.01)
        await relay.ask(b"GET /v1/responses/resp_far HTTP/1.1\r\nhost: relay\r\n\r\n")
        late = await relay_used(relay)

    assert early[0] == (1, -(-len(body) // 4), early[0][2])
    assert 0 < early[0][2] < 50
    assert late == [(1, 100, 50)]


async def relay_used(relay: Any) -> list[tuple[int, int, int]]:
    line = f"GET /v1/organization/usage/completions?start_time={int(time.time()) - 120} HTTP/1.1"
    told = await relay.ask(f"{line}\r\nhost: relay\r\n\r\n".encode())
    results = [one for bucket in json.loads(told.body)["data"] for one in bucket["results"]]
    return [
        (one["num_model_requests"], one["input_tokens"], one["output_tokens"]) for one in results
    ]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_response_is_read_in_any_pieces(size: int):
    for said in (json.dumps(ENDED).encode(), events().removeprefix(STREAM)):
        observer = ResponseObserver()
        for start in range(0, len(said), size):
            observer.feed(said[start : start + size])

        assert observer.response() == ENDED


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[1]",
        b'{"id": 1}',
        b'data: {"response": 1}\n\n',
        b'data: {"response":\n\n',
        b"data: " + b"x" * 200 + b"\n\n",
        b"{" + b" " * 200 + b'"id":"resp_1"}',
    ],
)
def test_the_observer_ignores_other_and_overlong_bodies(said: bytes):
    observer = ResponseObserver(limit_bytes=100)
    observer.feed(said)

    assert observer.response() is None


def test_response_observer_limits_the_events_of_a_stream_and_not_the_stream():
    said = events().removeprefix(STREAM)
    observer = ResponseObserver(limit_bytes=len(said) - 1)
    for _ in range(3):
        observer.feed(said[:10])
        observer.feed(said[10:])

    assert observer.response() == ENDED


NONE = b"HTTP/1.1 404 X\r\ncontent-length: 2\r\n\r\n{}"
BROKEN = b"HTTP/1.1 200 X\r\ncontent-le"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"GET", b""),
        (b"GET", b"?stream=true"),
        (b"DELETE", b""),
        (b"POST", b"/cancel"),
        (b"GET", b"/input_items"),
    ],
)
async def test_a_response_is_found_at_whichever_upstream_it_was_made(
    tmp_path: Path, method: bytes, path: bytes
):
    ended = whole(ENDED)
    async with FakeUpstream(answer=NONE) as a, FakeUpstream(answer=ended) as b:
        backends = [backend(a, "a", "one"), backend(b, "b", "two")]
        async with gateway(tmp_path, backends=backends) as relay:
            target = b"/v1/responses/resp_far" + path
            answer = await relay.ask(method + b" " + target + b" HTTP/1.1\r\nhost: relay\r\n\r\n")

    assert (answer.status, json.loads(answer.body)) == (200, ENDED)
    assert [len(fake.requests) for fake in (a, b)] == [1, 1]
    assert b.requests[0].first_line.split()[1] == target


@pytest.mark.parametrize(("first", "last"), [(BROKEN, NONE), (NONE, BROKEN), (NONE, NONE)])
async def test_a_response_unknown_to_all_upstreams_is_missing_unless_one_failed(
    tmp_path: Path, first: bytes, last: bytes
):
    async with FakeUpstream(answer=first) as a, FakeUpstream(answer=last) as b:
        backends = [backend(a, "a", "one"), backend(b, "b", "two")]
        async with gateway(tmp_path, backends=backends) as relay:
            answer = await relay.ask(b"GET /v1/responses/resp_far HTTP/1.1\r\nhost: relay\r\n\r\n")

    assert answer.status == (404 if first == last else 502)
