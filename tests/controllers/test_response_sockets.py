"""Responses of an upstream's models come over a WebSocket, too."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from aiohttp import ClientSession, ClientWebSocketResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_backend.app import App
from llm_backend.backends.upstream.websockets import CloseReason
from llm_backend.controllers.websockets.response_socket import _ResponseConnection
from llm_backend.controllers.websockets.stream_queues import StreamQueues
from llm_backend.controllers.websockets.unstored_responses import UnstoredResponses
from llm_backend.settings import load_settings
from tests.upstream import serving

EVENTS = [
    {"type": "response.created", "sequence_number": 0, "response": {}},
    {"type": "error", "sequence_number": 1, "code": "c", "message": "m", "param": None},
]


class Upstream:
    """Answers every response with the same events, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.events = EVENTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        self.asked.append(json.loads(body))
        text = (
            "".join(f"data: {json.dumps(event)}\n\n" for event in self.events) + "data: [DONE]\n\n"
        )
        await Response(text, media_type="text/event-stream")(scope, receive, send)


@contextlib.asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[tuple[Upstream, ClientWebSocketResponse]]:
    """A socket to a server whose only models are an upstream's."""
    far = Upstream()
    async with serving(far) as far_port:
        backends = [{"name": "far", "base_url": f"http://127.0.0.1:{far_port}/v1", "api_key": "k"}]
        app = App(load_settings({"models": (), "data_dir": tmp_path, "backends": backends}))
        async with (
            app.open(),
            serving(app, ws="auto") as port,
            ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}/v1/responses") as socket,
        ):
            yield far, socket


async def test_events_of_an_upstream_are_sent_as_messages(tmp_path):
    async with connected(tmp_path) as (far, socket):
        await socket.send_json(
            {"type": "response.create", "model": "gpt", "input": "Hi", "stream_id": "s"}
        )
        created, failed = [await socket.receive_json() for _ in EVENTS]

    assert far.asked == [{"model": "gpt", "input": "Hi", "stream": True}]
    assert created == {**EVENTS[0], "stream_id": "s"}
    assert failed == {
        "type": "error", "sequence_number": 1, "stream_id": "s",
        "error": {"type": "server_error", "code": "c", "message": "m", "param": None},
    }  # fmt: skip


async def test_a_message_that_cannot_be_sent_on_is_refused_and_the_next_one_is_not(tmp_path):
    deep = json.loads("[" * 300 + "]" * 300)
    async with connected(tmp_path) as (far, socket):
        for said in (deep, "Hi"):
            await socket.send_json({"type": "response.create", "model": "gpt", "input": said})
        told = [await socket.receive_json() for _ in ("refused", *EVENTS)]

    assert sorted(one["type"] for one in told) == ["error", "error", "response.created"]
    assert "nested deeper than 100 levels" in str(told)
    assert [one["input"] for one in far.asked] == ["Hi"]


def completed(id: str, *output: dict) -> dict:
    return {
        "type": "response.completed", "sequence_number": 0,
        "response": {"id": id, "output": output},
    }  # fmt: skip


async def test_a_response_that_is_not_stored_is_continued_on_its_connection(tmp_path):
    said = {"type": "message", "role": "assistant", "content": [], "id": "m"}
    hidden = {"type": "reasoning", "id": "rs", "summary": []}
    async with connected(tmp_path) as (far, socket):
        for number, (previous, store) in enumerate(
            [("stored", False), ("r0", False), ("r1", True), ("r2", None), ("r0", True)]
        ):
            far.events = [completed(f"r{number}", hidden, {**said, "id": f"m{number}"})]
            await socket.send_json(
                {"type": "response.create", "model": "gpt", "input": f"Question {number}",
                 "previous_response_id": previous, "store": store}
            )  # fmt: skip
            await socket.receive_json()

    def question(number: int) -> dict:
        return {"type": "message", "role": "user", "content": f"Question {number}"}

    first, second = [question(0), {**said, "id": "m0"}], [question(1), {**said, "id": "m1"}]
    assert [(one["previous_response_id"], one["input"]) for one in far.asked] == [
        ("stored", "Question 0"),
        ("stored", [*first, question(1)]),
        ("stored", [*first, *second, question(2)]),
        ("r2", "Question 3"),
        ("stored", [*first, question(4)]),
    ]


def test_malformed_responses_are_not_kept():
    responses = UnstoredResponses(limit_bytes=200)
    for response in (None, {}, {"id": 1, "output": []}, {"id": "r", "output": None}):
        event = json.dumps({"type": "response.completed", "response": response})
        responses.add(b'{"previous_response_id": null}', event)

    assert not responses.may_continue(b'{"previous_response_id": "r"}')


def test_oldest_unstored_responses_are_forgotten_first():
    responses = UnstoredResponses(limit_bytes=200)
    for number in (0, 0, 1, 2):  # an upstream may repeat an id
        body = json.dumps({"input": [{"role": "user", "content": "x" * 50}]}).encode()
        responses.add(body, json.dumps(completed(f"r{number}")))
    bodies = [json.dumps({"previous_response_id": f"r{number}"}).encode() for number in range(3)]

    assert [responses.expand(body) == body for body in bodies] == [True, False, False]


class SilentClient:
    """Client that sends nothing after its first message."""

    def __init__(self) -> None:
        self.closed_at_s = 0.0

    async def messages(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def close(self, closing: CloseReason) -> None:
        self.closed_at_s = time.monotonic()


async def test_a_connection_is_idle_from_the_end_of_its_last_answer():
    async def answer() -> None:
        await asyncio.sleep(0.3)
        ended_at_s.append(time.monotonic())

    ended_at_s: list[float] = []
    queues = StreamQueues(streams_limit=1, waiting_limit=1, waiting_limit_bytes=1)
    client: Any = SilentClient()
    nothing = cast(Any, None)
    connection = _ResponseConnection(client, nothing, [], queues, nothing, limits=nothing)
    queues.add(None, answer, 1)
    async with asyncio.timeout(30):
        await connection.run(idle_timeout_s=0.4)

    assert client.closed_at_s - ended_at_s[0] >= 0.4
