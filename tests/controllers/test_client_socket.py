"""The client's side of a WebSocket whose client has vanished."""

import asyncio

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from llm_backend.backends.upstream.websockets import CloseReason
from llm_backend.controllers.websockets.client_socket import ClientSocket
from llm_backend.errors import ClientGone


async def vanished_client() -> WebSocket:
    """An accepted socket. Its client does not receive anything."""
    events: list[Message] = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        return events.pop() if events else await asyncio.Future()

    async def send(message: Message) -> None:
        if message["type"] != "websocket.accept":
            raise OSError("The connection is lost.")

    socket = WebSocket({"type": "websocket"}, receive, send)
    await socket.accept()
    return socket


async def test_each_send_to_a_vanished_client_raises_that_it_has_left() -> None:
    client = ClientSocket(await vanished_client())

    for _ in range(3):
        with pytest.raises(ClientGone):
            await client.send("an event")
    await client.close(CloseReason(code=1000))


async def test_a_connection_is_closed_once() -> None:
    client = ClientSocket(await vanished_client())

    for _ in range(2):
        await client.close(CloseReason(code=1000))
    with pytest.raises(ClientGone):
        await client.send("an event")
