"""WebSockets as uvicorn speaks them, with OpenAI's error body for handshakes that are refused and
without tracebacks for what clients do wrong.
"""

from http import HTTPStatus
from secrets import token_hex
from typing import Any

import orjson
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Response

from llm_backend.errors import error_body, from_status

__all__ = ["SocketProtocol"]

_INVALID_DATA = 1007  # RFC 6455: text that is not UTF-8


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from its handshake on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # uvicorn's
        super().__init__(*args, **kwargs)
        self.conn.reject = _refusal  # type: ignore[method-assign] # made by uvicorn's own class

    def data_received(self, data: bytes) -> None:
        """Takes what came. The handshake comes first and as a whole; one that cannot be read, by
        headers that are too long say, is answered by the parser, and is sent here."""
        super().data_received(data)
        if not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Hands on a message that is whole; ends a connection whose text is no UTF-8."""
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
        """Sends what the application says. Where it has answered in place of a handshake, that is
        complete, too, which uvicorn takes for a handshake that the application forgot."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def keepalive_timeout(self) -> None:
        """Ends a connection whose client answers no ping, also where it reads nothing any more."""
        super().keepalive_timeout()
        self.loop.call_later(self.close_timeout, self.transport.abort)


def _refusal(status: HTTPStatus | int, text: str) -> Response:
    """The answer to a handshake that is refused before or without the application."""
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
