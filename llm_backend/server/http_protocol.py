"""HTTP/1.1 of uvicorn, with OpenAI's error body for malformed requests, a limit of the size of
heads, and timeouts for clients that send or read too slowly.
"""

import asyncio
import http
import logging
from email.utils import formatdate
from secrets import token_hex
from typing import Any

import httptools
import orjson
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llm_backend.error_bodies import error_body
from llm_backend.errors import InvalidRequest
from llm_backend.server.request_head import HeadCoalescingTransport, head_error, head_size
from llm_backend.server.request_pace import PaceLimits, RequestPace

log = logging.getLogger(__name__)

# Request line and headers, and the trailers after a body; the parser has no limit of its own.
HEAD_LIMIT_BYTES = 256 * 1024
_HEAD_TOO_LARGE = f"The headers are larger than {HEAD_LIMIT_BYTES} bytes."
_TRAILERS_TOO_LARGE = f"The trailers are larger than {HEAD_LIMIT_BYTES} bytes."


class HttpProtocol(HttpToolsProtocol):
    """One connection. A request with a malformed head never reaches the application; one whose body
    is malformed is disconnected.

    `check_timeouts` is called periodically and closes connections of slow clients, without a timer
    for each request.
    """

    _running: RequestResponseCycle | None = None
    _head_bytes = 0  # of a head, or of anything else that is no part of a body
    _is_in_head = False
    _has_body_bytes = False  # in the bytes that were parsed last
    _is_refused = False
    _fault, _fault_status = "The request is not valid HTTP.", 400

    def __init__(
        self, *args: Any, pace: PaceLimits, write_timeout_s: float, **kwargs: Any
    ) -> None:  # Any: uvicorn's
        super().__init__(*args, **kwargs)
        self._pace = RequestPace(pace, self.loop.time())
        self._write_timeout_s = write_timeout_s
        self._sent_bytes, self._sent_at_s = 0, self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Wraps the transport of a new connection."""
        super().connection_made(transport)
        self._raw_transport = transport
        self._heads = HeadCoalescingTransport(transport, self.loop)
        self.transport = self._heads  # type: ignore[assignment] # it has a transport's methods

    def connection_lost(self, exc: Exception | None) -> None:
        """Notifies the running request of the disconnect, which uvicorn reports only to the latest
        request. Drops the requests queued after it."""
        self.pipeline.clear()
        if self._running is not None:
            _disconnect(self._running)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Ends HTTP parsing for a WebSocket."""
        self.transport = self._raw_transport
        super().handle_websocket_upgrade()

    def check_timeouts(self, now_s: float, waited_s: float) -> None:
        """Refuses a request that arrives too slowly, and aborts a connection whose client reads
        nothing. The last call was `waited_s` ago."""
        sent_bytes, waiting_bytes = self._heads.sent_bytes()
        if not waiting_bytes or sent_bytes != self._sent_bytes:
            self._sent_bytes, self._sent_at_s = sent_bytes, now_s
        elif now_s - self._sent_at_s >= self._write_timeout_s:
            log.info("answer_not_taken", extra={"waiting_bytes": waiting_bytes})
            self.transport.abort()
            return
        if self._is_ready_to_read():
            self._pace.charge_wait(waited_s)
        if self._pace.is_too_slow(now_s) and not self._is_refused:
            self._refuse_slow()

    def data_received(self, data: bytes) -> None:
        """Parses received bytes; refuses a head or trailers that are too large."""
        if self._is_refused:
            return
        self._has_body_bytes = False
        self._unset_keepalive_if_required()
        unread = data
        while unread:
            unread = self._parse(unread)
        if self._is_in_head or not self._is_answering():
            self._pace.record_head(self.loop.time())
        is_bare = self._is_in_head or (self._pace.is_in_body and not self._has_body_bytes)
        self._head_bytes = self._head_bytes + len(data) if is_bare else 0
        if self._head_bytes > HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self._refuse(431, _HEAD_TOO_LARGE if self._is_in_head else _TRAILERS_TOO_LARGE)

    def _parse(self, data: bytes) -> bytes:
        """Parses bytes, and returns those to be parsed next. The parser takes a head that asks for
        another protocol for the whole request. As the connection stays at HTTP, unless it becomes a
        WebSocket, that head is parsed again as one that asks for none, and then its body."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._names_other_protocol():
                return self._head_without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.send_400_response(str(error))
        return b""

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % pair for pair in self.headers if pair[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a header. Drops a trailer, which nothing reads."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Checks the whole head. The parser passes an error to `send_400_response`."""
        if self._names_other_protocol():
            return
        if head_size(self.url, self.headers) > HEAD_LIMIT_BYTES:  # its last bytes came together
            self._fault, self._fault_status = _HEAD_TOO_LARGE, 431
            raise ValueError(_HEAD_TOO_LARGE)
        fault = head_error(self.parser.get_http_version(), self.url, self.headers)
        if fault is None and self._is_answering() and self._opens_websocket():
            fault = "A WebSocket cannot be opened before the earlier answer has ended."
        if fault is not None:
            self._fault = fault
            raise ValueError(fault)
        super().on_headers_complete()
        self._is_in_head = False
        self._head_bytes = 0
        self._pace.end_head()

    def on_body(self, body: bytes) -> None:
        """Counts bytes of the body."""
        self._has_body_bytes = True
        self._pace.record_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the request."""
        if self._names_other_protocol():
            return
        self._pace.end_request()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers a malformed request."""
        self._refuse(self._fault_status, self._fault)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override] # as uvicorn's
        self._running = cycle
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type] # as uvicorn's

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _names_other_protocol(self) -> bool:
        """True if the head asks for another protocol than a WebSocket, as HTTP/2 (`h2c`)."""
        if not self.parser.should_upgrade() or self.parser.get_method() == b"CONNECT":
            return False
        return not self._should_upgrade()

    def _opens_websocket(self) -> bool:
        """True if the head asks for a WebSocket. It takes over the connection, so that an answer
        which still runs would be mixed with its frames, and would not end with the connection."""
        return bool(self.parser.should_upgrade()) and self._should_upgrade()

    def _is_ready_to_read(self) -> bool:
        """True if the server waits for the client: reading is not paused by buffered bytes, and the
        client does not wait for `100 Continue`."""
        cycle = self.cycle
        return not (cycle and (self.flow.read_paused or cycle.waiting_for_100_continue))

    def _refuse_slow(self) -> None:
        if self.transport.is_closing():
            return
        if not self._is_in_head and not self._pace.is_in_body:
            self.transport.close()  # no request has begun
            return
        log.info("request_too_slow", extra={"is_answering": self._is_answering()})
        self._refuse(408, "The request arrived too slowly.", code="request_timeout")

    def _refuse(self, status: int, message: str, *, code: str = "invalid_http") -> None:
        """Stops reading, and answers a faulty request unless an earlier answer on this connection
        is unfinished. The application sees a faulty body as a disconnect."""
        self._is_refused = True
        faulty = self.cycle if self._pace.is_in_body else None
        if faulty is not None and self.pipeline and self.pipeline[0][0] is faulty:
            self.pipeline.popleft()
        earlier = self.pipeline[0][0] if self.pipeline else self._running
        if earlier is not None and earlier is not faulty and not earlier.response_complete:
            earlier.keep_alive = False  # the connection ends with its answer
            return
        if faulty is None or not faulty.response_started:
            self.transport.write(_error_response(status, message, code))
        if faulty is not None:
            _disconnect(faulty)
        self.transport.close()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Notifies the application of a disconnect, unless its answer is complete."""
    if not cycle.response_complete:
        cycle.disconnected = True
    cycle.message_event.set()


def _error_response(status: int, message: str, code: str) -> bytes:
    body = orjson.dumps(error_body(InvalidRequest(message, code=code)))
    head = (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"date: {formatdate(usegmt=True)}\r\n"
        f"x-request-id: req_{token_hex(16)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
