"""The client's side of a WebSocket whose client has vanished."""

import asyncio

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from llm_backend.backends.upstream.websockets import CloseReason
from llm_backend.controllers.websockets.client_socket import READ_AHEAD_BYTES, ClientSocket
from llm_backend.errors import ClientGone
from tests.patience import settle


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


async def sending_client(messages: list[str], received: list[str]) -> WebSocket:
    """An accepted socket whose client sends these messages; those that are read are `received`."""

    async def receive() -> Message:
        if not accepted:
            accepted.append(True)
            return {"type": "websocket.connect"}
        await asyncio.sleep(0)
        if len(received) == len(messages):
            return await asyncio.Future()
        received.append(messages[len(received)])
        return {"type": "websocket.receive", "text": received[-1]}

    async def send(message: Message) -> None:
        pass

    accepted: list[bool] = []
    socket = WebSocket({"type": "websocket"}, receive, send)
    await socket.accept()
    return socket


@pytest.mark.parametrize(
    ("size", "read_ahead"), [(10, 17), (READ_AHEAD_BYTES // 2, 3), (READ_AHEAD_BYTES + 1, 1)]
)
async def test_messages_are_read_ahead_up_to_a_number_and_to_their_bytes(size, read_ahead) -> None:
    sent, received = ["x" * size] * 40, []
    async with ClientSocket(await sending_client(sent, received)) as client:
        await settle()
        assert len(received) == read_ahead

        messages = client.messages()
        assert [await anext(messages) for _ in sent] == sent
