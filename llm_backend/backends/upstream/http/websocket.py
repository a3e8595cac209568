"""WebSocket to an upstream, over aiohttp."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager

import aiohttp
from yarl import URL

from llm_backend.backends.upstream.http.ending import once
from llm_backend.backends.upstream.websockets import CloseReason, Message
from llm_backend.errors import UpstreamFailed

_HEARTBEAT_S = 20.0  # detects a dead connection, because a socket may be silent for long
_CLOSING_S = 0.1  # limit of the wait for the upstream's close frame: the client has closed
_MESSAGE_BYTES = 64 * 1024 * 1024


async def connect_socket(
    session: aiohttp.ClientSession,
    url: URL,
    headers: list[tuple[str, str]],
    protocols: Sequence[str],
) -> aiohttp.ClientWebSocketResponse[bool]:
    """Opens a WebSocket. Raises the HTTP client's own errors."""
    return await session.ws_connect(
        url,
        headers=headers,
        protocols=protocols,
        heartbeat=_HEARTBEAT_S,
        timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING_S),
        max_msg_size=_MESSAGE_BYTES,
    )


class Socket:
    """Open WebSocket, an `UpstreamSocket`; `on_close` is called once, when it is closed."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse[bool],
        translation: AbstractContextManager[None],
        on_close: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._translation = translation
        self._on_close = once(on_close)
        self._reason = ""
        self._is_closed_without_code = False

    @property
    def protocol(self) -> str | None:
        return self._socket.protocol

    async def messages(self) -> AsyncGenerator[Message, None]:
        with self._translation:
            while True:
                message = await self._socket.receive()
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._reason = str(message.extra or "")
                    self._is_closed_without_code = (
                        message.type is aiohttp.WSMsgType.CLOSE and message.data == 0
                    )
                    break
                yield message.data
            if message.type is aiohttp.WSMsgType.ERROR:
                raise UpstreamFailed("The upstream's WebSocket broke off.")

    @property
    def closing(self) -> CloseReason:
        if self._is_closed_without_code:  # a normal close that aiohttp takes for a broken one
            return CloseReason(code=aiohttp.WSCloseCode.OK)
        code = self._socket.close_code
        if code is None or code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
            return CloseReason(code=aiohttp.WSCloseCode.BAD_GATEWAY)
        return CloseReason(code=code, reason=self._reason)

    async def send(self, message: Message) -> None:
        with self._translation:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)

    async def close(self, closing: CloseReason) -> None:
        try:
            await self._socket.close(code=closing.code, message=closing.reason.encode())
        finally:
            self._on_close()
