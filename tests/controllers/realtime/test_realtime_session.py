"""Realtime sessions with a client and a model that wait for the test."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.contract import load_document
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.validation import Validators
from llm_backend.controllers.realtime import RealtimeSession
from llm_backend.controllers.realtime.inner_requests import InnerRequests
from llm_backend.controllers.realtime.session_config import Abilities, SessionConfig
from tests.patience import comes_true


class WaitingClient:
    """A client that reads nothing while `reads` is not set."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = events
        self.reads = asyncio.Event()
        self.reads.set()
        self.read: list[dict[str, Any]] = []

    async def messages(self) -> AsyncGenerator[str, None]:
        for event in self._events:
            yield json.dumps(event)
        await asyncio.Event().wait()

    async def send(self, message: str) -> None:
        await self.reads.wait()
        self.read.append(json.loads(message))


class Model:
    """Answers `/responses` with a message that never ends; counts its deltas."""

    def __init__(self) -> None:
        self.deltas = 0
        self.is_cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        item = {"type": "message", "role": "assistant", "content": []}
        await _send(send, {"type": "response.output_item.added", "item": item})
        try:
            while True:
                await _send(send, {"type": "response.output_text.delta", "delta": "x"})
                self.deltas += 1
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


async def _send(send: Send, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


class SpeakingModel:
    """Answers `/responses` with one sentence, and with the second once the first is `heard`."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/v1/audio/speech":
            await send({"type": "http.response.body", "body": b"\0\1" * 10, "more_body": False})
            return
        item = {"type": "message", "role": "assistant", "content": []}
        await _send(send, {"type": "response.output_item.added", "item": item})
        await _send(send, {"type": "response.output_text.delta", "delta": "The first one. "})
        await self.heard.wait()
        await _send(send, {"type": "response.output_text.delta", "delta": "The second one."})
        await _send(send, {"type": "response.output_text.done"})
        await _send(send, {"type": "response.output_item.done", "item": item})
        await _send(send, {"type": "response.completed", "response": {}})


def session(
    client: WaitingClient, model: ASGIApp, *, duration_s: float = 60, mute_because: str | None = "x"
) -> RealtimeSession:
    return RealtimeSession(
        client,
        SessionConfig.default("m", Abilities(mute_because=mute_because)),
        InnerRequests(model, lambda: None),
        Validators(load_document()),
        BodyLimits(),
        duration_s=duration_s,
        responses_limit=2,
        input_limit_s=10,
    )


async def test_a_session_ends_when_its_time_is_over():
    client = WaitingClient()

    is_left = await session(client, Model(), duration_s=0.01).run()

    assert not is_left
    assert [one["type"] for one in client.read] == ["session.created"]


async def test_a_model_waits_for_a_client_that_does_not_read():
    client, model = WaitingClient({"type": "response.create"}), Model()
    running = asyncio.create_task(session(client, model).run())
    assert await comes_true(lambda: len(client.read) > 5, within_s=20)
    client.reads.clear()
    sent = -1
    while sent != model.deltas:  # until the model is held back
        sent = model.deltas
        for _ in range(100):
            await asyncio.sleep(0)
    read = len(client.read)
    client.reads.set()
    assert await comes_true(lambda: len(client.read) > read + 100, within_s=20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert sent - read < 40
    assert model.is_cancelled


async def test_a_response_is_cancelled_while_its_client_is_slow():
    client = WaitingClient({"type": "response.create"}, {"type": "response.cancel"})
    running = asyncio.create_task(session(client, Model()).run())
    assert await comes_true(
        lambda: bool(client.read) and client.read[-1]["type"] == "response.done", within_s=20
    )
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert client.read[-1]["response"]["status"] == "cancelled"


async def test_the_first_sentence_is_heard_before_the_second_is_written():
    client, model = WaitingClient({"type": "response.create"}), SpeakingModel()
    running = asyncio.create_task(session(client, model, mute_because=None).run())

    def has(type: str, number: int) -> bool:
        return [one["type"] for one in client.read].count(type) == number

    assert await comes_true(lambda: has("response.output_audio.delta", 1), within_s=20)
    model.heard.set()
    assert await comes_true(lambda: has("response.done", 1), within_s=20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert has("response.output_audio.delta", 2)
