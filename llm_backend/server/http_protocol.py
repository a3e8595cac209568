"""HTTP/1.1 as uvicorn speaks it, with OpenAI's error body for what is not HTTP, and bounds on the
size of a head and on how slowly a request may come in and an answer be taken.
"""

import asyncio
import http
import logging
from email.utils import formatdate
from secrets import token_hex
from typing import Any

import orjson
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llm_backend.errors import InvalidRequest, error_body
from llm_backend.server.heads import HeadsWithBodies
from llm_backend.server.request_head import fault_of_head
from llm_backend.server.request_pace import PaceLimits, RequestPace

__all__ = ["HttpProtocol"]

log = logging.getLogger(__name__)

HEAD_LIMIT_BYTES = 256 * 1024  # of a request line and headers; the parser has no limit of its own


class HttpProtocol(HttpToolsProtocol):
    """One connection. What the parser cannot read never reaches the application. `look` is called
    now and then, and ends it where the client is too slow: no timer is set for any request."""

    _running: RequestResponseCycle | None = None
    _head_bytes = 0
    _is_in_head = False
    _is_refused = False
    _fault = "The request is not valid HTTP."

    def __init__(
        self, *args: Any, pace: PaceLimits, write_timeout_s: float, **kwargs: Any
    ) -> None:  # Any: uvicorn's
        super().__init__(*args, **kwargs)
        self._pace = RequestPace(pace, self.loop.time())
        self._write_timeout_s = write_timeout_s
        self._sent_bytes, self._sent_at_s = 0, self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """A client has come."""
        super().connection_made(transport)
        self._plain = transport
        self._heads = HeadsWithBodies(transport, self.loop)
        self.transport = self._heads  # type: ignore[assignment] # like one

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: from the request that is being answered, which uvicorn tells only
        to the latest, and from those behind it."""
        self.pipeline.clear()
        if self._running is not None:
            _cut_off(self._running)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """What follows is no HTTP."""
        self.transport = self._plain
        super().handle_websocket_upgrade()

    def look(self, now_s: float, waited_s: float) -> None:
        """Refuses a request that comes in too slowly, and cuts a connection whose client takes
        nothing of what is sent to it. `waited_s` has gone by since the last look."""
        sent_bytes, waiting_bytes = self._heads.sent_bytes()
        if not waiting_bytes or sent_bytes != self._sent_bytes:
            self._sent_bytes, self._sent_at_s = sent_bytes, now_s
        elif now_s - self._sent_at_s >= self._write_timeout_s:
            log.info("answer_not_taken", extra={"waiting_bytes": waiting_bytes})
            self.transport.abort()
            return
        if self._is_ready_to_read():
            self._pace.drain(waited_s)
        if self._pace.is_too_slow(now_s) and not self._is_refused:
            self._refuse_slow()

    def data_received(self, data: bytes) -> None:
        """Parses what came; refuses a head that does not end."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_in_head or not self._is_answering():
            self._pace.head_goes_on(self.loop.time())
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self._refuse(431, f"The headers are larger than {HEAD_LIMIT_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Its headers have ended. What is raised here, the parser gives to `send_400_response`."""
        fault = fault_of_head(self.parser.get_http_version(), self.url, self.headers)
        if fault is not None:
            self._fault = fault
            raise ValueError(fault)
        super().on_headers_complete()
        self._is_in_head = False
        self._pace.head_ends()

    def on_body(self, body: bytes) -> None:
        """Some of its body has come."""
        self._pace.body_goes_on(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        self._pace.request_ends()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP."""
        self._refuse(400, self._fault)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override] # the same
        self._running = cycle
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type] # the same

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _is_ready_to_read(self) -> bool:
        """Whether it is the client that is waited for: not where bytes lie in the way, or it waits
        for the word to go on."""
        return (
            not (self.flow.read_paused or self.cycle.waiting_for_100_continue)
            if self.cycle
            else True
        )

    def _refuse_slow(self) -> None:
        if self.transport.is_closing():
            return
        if not self._is_in_head and not self._pace.is_in_body:
            self.transport.close()  # nothing was asked
            return
        log.info("request_too_slow", extra={"is_answering": self._is_answering()})
        self._refuse(408, "The request came too slowly and was given up.", code="request_timeout")

    def _refuse(self, status: int, message: str, *, code: str = "invalid_http") -> None:
        """Answers what is wrong, unless another answer comes first on this connection, and takes
        nothing more. A request whose body is wrong is over for the application."""
        self._is_refused = True
        faulty = self.cycle if self._pace.is_in_body else None
        if faulty is not None and self.pipeline and self.pipeline[0][0] is faulty:
            self.pipeline.popleft()
        before = self.pipeline[0][0] if self.pipeline else self._running
        if before is not None and before is not faulty and not before.response_complete:
            before.keep_alive = False  # the connection ends with its answer
            return
        if faulty is None or not faulty.response_started:
            self.transport.write(_refusal(status, message, code))
        if faulty is not None:
            _cut_off(faulty)
        self.transport.close()


def _cut_off(cycle: RequestResponseCycle) -> None:
    """Tells the application that the client has gone, unless it has its answer."""
    if not cycle.response_complete:
        cycle.disconnected = True
    cycle.message_event.set()


def _refusal(status: int, message: str, code: str) -> bytes:
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
