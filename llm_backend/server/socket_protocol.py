"""WebSockets of uvicorn, with OpenAI's error body for refused handshakes, and without tracebacks
for errors of clients. The number of frames is bounded: a frame can be as small as six bytes, and
each costs processor time.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_hex
from typing import Any

import orjson
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Response

from llm_backend.error_bodies import error_body
from llm_backend.errors import from_status

_INVALID_DATA = 1007  # RFC 6455: text that is not UTF-8
_POLICY_VIOLATION = 1008
_SLICE_BYTES = 16 * 1024  # bytes of at most 2,700 frames: some milliseconds
_CONTROL_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class FrameLimits:
    """Limits of one connection's frames: `fragments` of a message, and `control_frames` (pings and
    pongs) within a second."""

    fragments: int
    control_frames: int


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection, from its handshake on."""

    def __init__(self, *args: Any, limits: FrameLimits, **kwargs: Any) -> None:  # uvicorn's
        super().__init__(*args, **kwargs)
        self.conn.reject = _rejection  # type: ignore[method-assign] # made by uvicorn's own class
        self._limits = limits
        self._unread: deque[bytes] = deque()
        self._control_frames = 0
        self._interval_began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Processes received bytes, in slices between which the event loop can run. The handshake
        arrives first and as a whole. The parser answers an unreadable one (headers too long, for
        instance), and that answer is sent here."""
        if not self.handshake_initiated:
            super().data_received(data)
            if not self.handshake_initiated:
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.transport.close()
            return
        is_reading = bool(self._unread)
        self._unread += (
            data[start : start + _SLICE_BYTES] for start in range(0, len(data), _SLICE_BYTES)
        )
        if is_reading:
            self.transport.pause_reading()
        else:
            self._read_slice()

    def _read_slice(self) -> None:
        if self.transport.is_closing():
            self._unread.clear()
            return
        super().data_received(self._unread[0])
        self._unread.popleft()
        if self._unread:
            self.transport.pause_reading()
            self.loop.call_soon(self._read_slice)
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_cont(self, event: Frame) -> None:
        """Adds a fragment to its message."""
        if len(self.frames) >= self._limits.fragments:
            self._refuse("more fragments of a message than are accepted")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answers a ping."""
        if self._accepts_control_frame():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Reads the answer to a ping."""
        if self._accepts_control_frame():
            super().handle_pong(event)

    def _accepts_control_frame(self) -> bool:
        now = self.loop.time()
        if now - self._interval_began >= _CONTROL_INTERVAL_S:
            self._interval_began, self._control_frames = now, 0
        self._control_frames += 1
        if self._control_frames > self._limits.control_frames:
            self._refuse("more pings in a second than are answered")
            return False
        return True

    def _refuse(self, reason: str) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.frames = []
            self.conn.send_close(_POLICY_VIOLATION, reason)
            self.handle_parser_exception()

    async def receive(self) -> Any:  # Any: an ASGI event
        """Returns the next event, after others have run: many messages may be waiting."""
        await asyncio.sleep(0)
        return await super().receive()

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
        here; otherwise uvicorn would report that the application sent no handshake."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def keepalive_timeout(self) -> None:
        """Closes a connection whose client answers no ping, even if it reads nothing any more."""
        super().keepalive_timeout()
        self.loop.call_later(self.close_timeout, self.transport.abort)


def _rejection(status: HTTPStatus | int, text: str) -> Response:
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
