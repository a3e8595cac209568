"""Client side of a WebSocket: received messages and detection of disconnects."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from llm_backend.backends.upstream.websockets import CloseReason, Message
from llm_backend.contract.client_disconnect import run_until_disconnect
from llm_backend.errors import ClientGone

T = TypeVar("T")

# Messages are read before they are needed, so that a disconnect is noticed while an upstream is
# slow. These limits bound what is held. A message may be as large as a body.
_READ_AHEAD_MESSAGES = 16
READ_AHEAD_BYTES = 1024 * 1024

GOING_AWAY = 1001
"""Close code of an endpoint that goes away (RFC 6455, 7.4.1)."""

_ABNORMAL = 1006
_NEVER_SENT = frozenset({1004, 1005, _ABNORMAL, 1015})  # RFC 6455, 7.4.1


class ClientSocket:
    """Reads a WebSocket within `async with`, after its connect event."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(_READ_AHEAD_MESSAGES)
        self._read_ahead_bytes = 0
        self._has_room = asyncio.Event()
        self._disconnected = asyncio.Event()
        self.closing = CloseReason(code=1000)

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Yields the client's messages until it disconnects."""
        while (message := await self._messages.get()) is not None:
            self._read_ahead_bytes -= len(message)
            self._has_room.set()
            yield message

    async def cancel_on_disconnect(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns the result of `work`; cancels it and raises `ClientGone` on disconnect."""
        return await run_until_disconnect(work, self._disconnected.wait)

    async def send(self, message: Message) -> None:
        """Sends one message; raises `ClientGone` after a disconnect, or after `close`."""
        if self._is_over:
            raise ClientGone
        try:
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)
        except WebSocketDisconnect as error:
            raise ClientGone from error

    async def close(self, closing: CloseReason) -> None:
        """Closes the connection, unless it is closed or the client has disconnected."""
        if not self._disconnected.is_set() and not self._is_over:
            with suppress(WebSocketDisconnect):
                await self._socket.close(closing.code, closing.reason)

    @property
    def _is_over(self) -> bool:
        """True once nothing can be sent: a send has failed, or the connection was closed."""
        return self._socket.application_state is WebSocketState.DISCONNECTED

    async def _read(self) -> None:
        while (event := await self._socket.receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.receive":
                await self._read_ahead(_message(event))
        self.closing = _close_reason(event)
        self._disconnected.set()
        await self._messages.put(None)

    async def _read_ahead(self, message: Message) -> None:
        """Queues a message; returns once another one may be read."""
        self._read_ahead_bytes += len(message)
        await self._messages.put(message)
        while self._read_ahead_bytes > READ_AHEAD_BYTES:
            self._has_room.clear()
            await self._has_room.wait()


def _message(event: Any) -> Message:  # Any: an ASGI event
    text: str | None = event.get("text")
    data: bytes = event.get("bytes") or b""
    return data if text is None else text


def _close_reason(event: Any) -> CloseReason:  # Any: an ASGI event
    code = event.get("code") or 1005
    reason = event.get("reason") or ""
    if code == _ABNORMAL:
        return CloseReason(code=GOING_AWAY, reason=reason)
    return CloseReason(code=1000 if code in _NEVER_SENT else code, reason=reason)
