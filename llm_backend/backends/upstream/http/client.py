"""HTTP/1.1 client of one upstream: requests on pooled connections.

Connections, TLS, name resolution and the parsing of answers are aiohttp's. Its `ClientSession` is
not used. For every request a session builds a URL, maps of headers, cookies, a payload, a writer
with its task, a request and a response. A relayed request is bytes already.
"""

import asyncio
from collections.abc import Callable, Sequence

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.helpers import TimeoutHandle
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.headers import HeaderPairs
from llm_backend.backends.upstream.http.body import AnswerDeadline, pieces_of, send_pieces
from llm_backend.backends.upstream.http.session import HEADER_BYTES, HEADER_COUNT, timeouts_of
from llm_backend.backends.upstream.retry_rules import is_idempotent
from llm_backend.backends.upstream.upstream_request import Body

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})  # an empty body needs no length
_BUFFER_BYTES = 64 * 1024  # of an unread answer; beyond them reading is paused
_SWITCHING = 101
# Control characters except the tab: none may be in a target or a header.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09})


class HttpAnswer:
    """Answer whose head has arrived. Its connection returns to the pool at the body's end."""

    __slots__ = ("_connection", "_upload", "content", "headers", "method", "raw_headers", "status")

    def __init__(
        self,
        method: str,
        message: RawResponseMessage,
        content: aiohttp.StreamReader,
        connection: Connection,
        upload: "asyncio.Task[None] | None",
    ) -> None:
        self.method = method
        self.status: int = message.code
        self.headers: CIMultiDictProxy[str] = message.headers
        self.raw_headers: Sequence[tuple[bytes, bytes]] = message.raw_headers
        self.content = content
        self._connection: Connection | None = connection
        self._upload = upload
        content.on_eof(self._end)

    @property
    def protocol(self) -> ResponseHandler | None:
        """Protocol of the connection; None if the whole answer has arrived."""
        return None if self._connection is None else self._connection.protocol

    def abort(self) -> None:
        """Closes the answer. If its end has not arrived, the connection is aborted immediately,
        without a flush or a TLS shutdown."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._upload is not None:
            self._upload.cancel()
        if connection.transport is not None:
            connection.transport.abort()
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientConnectionError("The answer was closed."))
        connection.close()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._upload is not None and self._upload.cancel():
            connection.close()  # the upstream has answered without the rest of the body
        else:
            connection.release()


class HttpClient:
    """Sends requests to the origin of a base URL, on the connections of `connector`."""

    def __init__(self, config: UpstreamConfig, connector: aiohttp.BaseConnector) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        self._timeouts = timeouts_of(config)
        self._first_byte_timeout_s = config.answer_timeout_s
        # Never sent: it names the address for the connector.
        self._address = ClientRequest("GET", URL(config.base_url), loop=self._loop)
        self._host = b"Host: " + self._address.headers["Host"].encode()

    async def send(
        self,
        method: str,
        target: str,
        headers: HeaderPairs,
        body: Body,
        *,
        length: int | None,
        on_abandoned: Callable[[], None],
    ) -> HttpAnswer:
        """Sends one request and returns the answer when its head has arrived.

        `target` is percent-encoded; `length` is that of the body, if it is known. `on_abandoned` is
        called if this is cancelled after the request was sent. Raises aiohttp's errors, and
        `ValueError` for a header with a control character.
        """
        head = self._head(method, target, headers, body, length)
        may_retry = is_idempotent(method) and isinstance(body, bytes)
        while True:
            try:
                return await self._send_once(method, head, body, length, on_abandoned)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
                # The upstream may have just closed a connection that was kept alive.
                if not may_retry or isinstance(error, aiohttp.ClientConnectorError):
                    raise
                may_retry = False

    def _head(
        self, method: str, target: str, headers: HeaderPairs, body: Body, length: int | None
    ) -> bytes:
        lines = [f"{method} {target} HTTP/1.1".encode(), self._host]
        lines += [name + b": " + value for name, value in headers]
        if length is not None:
            lines.append(b"content-length: %d" % length)
        elif not isinstance(body, bytes):
            lines.append(b"transfer-encoding: chunked")
        elif method not in _WITHOUT_BODY:
            lines.append(b"content-length: 0")
        head = b"\r\n".join(lines)
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(lines) - 1):
            raise ValueError("A header or the target holds a control character.")
        return head + b"\r\n\r\n"

    async def _send_once(
        self,
        method: str,
        head: bytes,
        body: Body,
        length: int | None,
        on_abandoned: Callable[[], None],
    ) -> HttpAnswer:
        total = TimeoutHandle(self._loop, self._timeouts.total)  # also while the answer is read
        ending = total.start()
        connection: Connection | None = None
        try:
            with total.timer() as timer:
                connection = await self._connect()
                protocol = connection.protocol
                assert protocol is not None, "a new connection is open"
                protocol.set_response_params(
                    timer=timer,
                    skip_payload=method == "HEAD",
                    read_until_eof=True,
                    auto_decompress=False,
                    read_bufsize=_BUFFER_BYTES,
                    max_line_size=HEADER_BYTES,
                    max_field_size=HEADER_BYTES,
                    max_headers=HEADER_COUNT,
                )
                deadline = AnswerDeadline(protocol, self._loop, self._first_byte_timeout_s)
                upload = self._write(protocol, head, body, length, deadline)
                try:
                    message, content = await _head_of_answer(protocol)
                except BaseException as error:
                    if upload is not None:
                        upload.cancel()
                    if isinstance(error, asyncio.CancelledError) and deadline.is_running:
                        on_abandoned()
                    raise
                finally:
                    deadline.end()
        except BaseException:
            if connection is not None:
                connection.close()
            if ending is not None:
                ending.cancel()
            raise
        if ending is not None:
            connection.add_callback(ending.cancel)
        return HttpAnswer(method, message, content, connection, upload)

    async def _connect(self) -> Connection:
        try:
            return await self._connector.connect(self._address, traces=[], timeout=self._timeouts)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(
                "The connection was not opened in time."
            ) from error

    def _write(
        self,
        protocol: ResponseHandler,
        head: bytes,
        body: Body,
        length: int | None,
        deadline: AnswerDeadline,
    ) -> "asyncio.Task[None] | None":
        """Sends the request; returns the task that sends the rest of a long or streamed body."""
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        pieces = pieces_of(body)
        if isinstance(pieces, bytes):
            transport.write(head + pieces)
            deadline.restart()
            return None
        return asyncio.create_task(send_pieces(protocol, head, pieces, length, deadline))


async def _head_of_answer(
    protocol: ResponseHandler,
) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    """Returns the answer's head and its body; interim answers are skipped."""
    while True:
        try:
            message, content = await protocol.read()
        except HttpProcessingError as error:
            raise aiohttp.ClientPayloadError(f"The answer is not HTTP: {error}") from error
        if message.code == _SWITCHING or not 100 <= message.code < 200:
            return message, content
