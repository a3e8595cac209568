"""Answers that come piece by piece end what they are made of, however they end themselves."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.controllers.rendering.event_stream import event_stream


class Pieces:
    """Something without end that holds something while it is read."""

    def __init__(self) -> None:
        self.is_held = False

    async def said(self) -> AsyncGenerator[bytes, None]:
        self.is_held = True
        try:
            while True:
                yield b"data: 1\n\n"
        finally:
            await asyncio.sleep(0)
            self.is_held = False


class Client:
    """Receives `takes` messages, and disconnects while the next is sent."""

    def __init__(self, takes: int) -> None:
        self._takes = takes
        self._is_leaving = asyncio.Event()

    async def send(self, _message: object) -> None:
        self._takes -= 1
        if self._takes < 0:
            self._is_leaving.set()
            await asyncio.Event().wait()

    async def receive(self) -> dict[str, str]:
        await self._is_leaving.wait()
        return {"type": "http.disconnect"}


@pytest.mark.parametrize("takes", [0, 1, 5])
async def test_a_disconnect_during_a_send_frees_the_stream(takes: int):
    pieces, client = Pieces(), Client(takes)
    response = await event_stream(pieces.said())
    assert pieces.is_held

    await response({"type": "http"}, client.receive, client.send)

    assert not pieces.is_held


async def test_closing_a_relayed_answer_closes_its_body():
    pieces = Pieces()
    relayed = UpstreamAnswer(status=200, headers=(), body=pieces.said(), close=lambda: None)
    await anext(relayed.body)

    await relayed.aclose()

    assert not pieces.is_held
