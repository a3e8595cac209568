"""WebSockets of uvicorn, with OpenAI's error body for refused handshakes, and without tracebacks
for errors of clients.
"""

from http import HTTPStatus
from secrets import token_hex
from typing import Any

import orjson
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Response

from llm_backend.errors import error_body, from_status

_INVALID_DATA = 1007  # RFC 6455: text that is not UTF-8


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection, from its handshake on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # uvicorn's
        super().__init__(*args, **kwargs)
        self.conn.reject = _refusal  # type: ignore[method-assign] # made by uvicorn's own class

    def data_received(self, data: bytes) -> None:
        """Processes received bytes. The handshake arrives first and as a whole. The parser answers
        an unreadable one (headers too long, for instance), and that answer is sent here."""
        super().data_received(data)
        if not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Passes a whole message on; closes a connection whose text is not UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                text = b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(_INVALID_DATA, "text that is not UTF-8")
                self.handle_parser_exception()
                return
            self.frames = []
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
            self._pause_reading()
            return
        super().send_receive_event_to_app()

    def _pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:  # Any: an ASGI event
        """Sends an event of the application. An HTTP answer in place of a handshake is completed
        here: uvicorn takes it for a handshake that the application forgot."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def keepalive_timeout(self) -> None:
        """Closes a connection whose client answers no ping, even if it reads nothing any more."""
        super().keepalive_timeout()
        self.loop.call_later(self.close_timeout, self.transport.abort)


def _refusal(status: HTTPStatus | int, text: str) -> Response:
    """Builds the answer to a handshake that is refused before or without the application."""
    status = HTTPStatus(status)
    sentence = " ".join(text.split()) or "The WebSocket was refused."
    body = orjson.dumps(error_body(from_status(status, sentence)))
    headers = Headers(
        {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": f"req_{token_hex(16)}",
        }
    )
    return Response(status.value, status.phrase, headers, body)
