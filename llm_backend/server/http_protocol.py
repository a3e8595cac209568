"""HTTP/1.1 as uvicorn speaks it, with OpenAI's error body for what is not HTTP, and a bound on what
comes before a body.
"""

import asyncio
import http

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llm_backend.errors import InvalidRequest, error_body
from llm_backend.server.heads import HeadsWithBodies

__all__ = ["HttpProtocol"]

HEAD_LIMIT_BYTES = 256 * 1024  # of a request line and headers; the parser has no limit of its own


class HttpProtocol(HttpToolsProtocol):
    """One connection. What the parser cannot read never reaches the application."""

    _head_bytes = 0
    _is_in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """A client has come."""
        super().connection_made(transport)
        self._plain = transport
        self.transport = HeadsWithBodies(transport, self.loop)  # type: ignore[assignment] # like one

    def handle_websocket_upgrade(self) -> None:
        """What follows is no HTTP."""
        self.transport = self._plain
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parses what came; refuses a head that does not end."""
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self._refuse(431, f"The headers are larger than {HEAD_LIMIT_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Its headers have ended."""
        self._is_in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP."""
        self._refuse(400, "The request is not valid HTTP.")

    def _refuse(self, status: int, message: str) -> None:
        body = orjson.dumps(error_body(InvalidRequest(message, code="invalid_http")))
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
