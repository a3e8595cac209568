"""One upstream that speaks OpenAI's API: bytes out as they came in, bytes back as they were sent.

The only module that imports the HTTP client; it is imported only where an upstream is configured.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from llm_backend.backends.relayed import Headers, Relayed, answer_headers, request_headers
from llm_backend.backends.upstreams.azure import azure_path, azure_query
from llm_backend.backends.upstreams.config import Kind, UpstreamConfig
from llm_backend.backends.upstreams.health import Health
from llm_backend.backends.upstreams.retry import DOWN
from llm_backend.backends.upstreams.sockets import (
    Closing,
    Message,
    UpstreamSocket,
    socket_headers,
)
from llm_backend.errors import ApiError, UpstreamError, UpstreamFailed, UpstreamTimeout, from_status

__all__ = ["Upstream"]

log = logging.getLogger(__name__)

Body = bytes | AsyncIterator[bytes]

_NO_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_HEADER_BYTES = 64 * 1024
_HEADER_COUNT = 256
_PIECE_BYTES = 256 * 1024
_WHOLE_BYTES = 1024 * 1024  # larger bodies go out in pieces, so that the loop is never held up
_LIST_BYTES = 16 * 1024 * 1024
_LIST_TIMEOUT_S = 5.0  # who lists models waits for the slowest upstream
_FAILURE_KEPT_S = 2.0
_HEARTBEAT_S = 20.0  # a socket may be silent for long; this is how its death is noticed
_CLOSING_S = 0.1  # for the upstream's farewell: who has left waits for nothing
_MESSAGE_BYTES = 64 * 1024 * 1024
# Below the 5 s after which uvicorn and Node close an idle connection: a request never meets one
# that is being closed.
_KEEPALIVE_S = 4.0


class Upstream:
    """A connection pool to one base URL with one key; `async with` opens and closes it.

    Sends each request once, but for one case: a GET, PUT or DELETE whose kept connection was
    closed under it goes out again on a new one (RFC 9110, 9.2.2). Knows how busy it is and, by
    `health`, how its latest requests ended.
    """

    def __init__(self, config: UpstreamConfig) -> None:
        parts = urlsplit(config.base_url)
        self.config = config
        self.health = Health()
        self.outstanding = 0
        self._scheme, self._authority = parts.scheme, parts.netloc
        self._base_path = parts.path.rstrip("/")
        self._own_headers = _own_headers(config)
        self._idle_timeout_s = config.idle_timeout_s
        self._first_byte_timeout_s = config.first_byte_timeout_s or config.idle_timeout_s
        self._breaking = _Breaking()
        self._models: asyncio.Task[list[dict[str, Any]]] | None = None
        self._models_until = 0.0
        self._session: aiohttp.ClientSession

    @property
    def name(self) -> str:
        """Its name in the settings."""
        return self.config.name

    @property
    def weight(self) -> float:
        """How many requests it is worth."""
        return self.config.weight

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent to it."""
        return self.outstanding < self.config.concurrency

    async def __aenter__(self) -> Self:
        config = self.config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=config.concurrency, keepalive_timeout=_KEEPALIVE_S
            ),
            timeout=aiohttp.ClientTimeout(
                total=config.total_timeout_s,
                connect=config.connect_timeout_s,
                sock_read=self._first_byte_timeout_s,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy or netrc of the environment would change what is sent where
            skip_auto_headers=_NO_AUTOMATIC_HEADERS,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_HEADER_COUNT,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._models is not None:
            self._models.cancel()
        await self._session.close()

    async def exchange(
        self,
        *,
        method: str,
        path: str,
        query: bytes,
        headers: Headers,
        body: Body,
        model: str | None = None,
    ) -> Relayed:
        """Sends one request and returns the answer as soon as its headers are there.

        `path` is percent-encoded and relative to the base URL, `query` the raw query string; a
        streamed body keeps the `Content-Length` among `headers`, or goes out chunked; `model` is
        what Azure calls a deployment. Raises `UpstreamFailed`, `UpstreamTimeout`, or
        `InvalidRequest` for a header that cannot be sent.
        """
        pairs = list(headers)
        sent = request_headers(pairs, own=self._own_headers, length=_length_of(body, pairs))
        url = self._url(path, query.decode("latin-1"), model)
        with self._under_way():
            return self._relayed(await self._answer(method, url, sent, body))

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Counts a request that begins; what it returns has to be closed, what fails is told."""
        self.outstanding += 1
        self.health.begin()
        try:
            yield
        except UpstreamError:
            self._failed()
            self.outstanding -= 1
            raise
        except BaseException:
            self.health.left()
            self.outstanding -= 1
            raise

    async def _answer(
        self, method: str, url: URL, headers: list[tuple[str, str]], body: Body
    ) -> aiohttp.ClientResponse:
        timeout_s = self._first_byte_timeout_s
        with self._translated():
            async with asyncio.timeout(timeout_s) as deadline:
                answer = await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=_data(body, _Patience(deadline, timeout_s)),
                    allow_redirects=False,
                )
        connection = answer.connection
        if connection is not None and connection.protocol is not None:  # else it is whole already
            connection.protocol.read_timeout = self._idle_timeout_s
            self._breaking.watch(connection.protocol, answer.content)
        return answer

    def _url(self, path: str, query: str, model: str | None) -> URL:
        if self.config.kind is Kind.AZURE:
            path = azure_path(path, None if model is None else quote(model, safe=""))
            query = azure_query(query, self.config.api_version)
        return URL.build(
            scheme=self._scheme,
            authority=self._authority,
            path=self._base_path + path,
            query_string=query,
            encoded=True,
        )

    async def connect(
        self,
        *,
        path: str,
        query: bytes,
        headers: Headers,
        protocols: Sequence[str],
        model: str | None = None,
    ) -> UpstreamSocket:
        """Opens a WebSocket; `protocols` are the subprotocols to choose from.

        Raises as `exchange` does, and the error of its status where the upstream refuses.
        """
        sent = request_headers(socket_headers(headers), own=self._own_headers, length=None)
        url = self._url(path, query.decode("latin-1"), model)
        with self._under_way():
            with self._translated():
                async with asyncio.timeout(self._first_byte_timeout_s):
                    try:
                        socket = await self._session.ws_connect(
                            url,
                            headers=sent,
                            protocols=protocols,
                            heartbeat=_HEARTBEAT_S,
                            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING_S),
                            max_msg_size=_MESSAGE_BYTES,
                        )
                    except aiohttp.WSServerHandshakeError as error:
                        raise self._refused(error) from error
            self.health.succeeded()
            return _Socket(socket, self._translated, self._socket_ended)

    def _socket_ended(self) -> None:
        self.outstanding -= 1

    def _refused(self, error: aiohttp.WSServerHandshakeError) -> ApiError:
        """The error of a handshake's status; one that is the client's to mend passes through."""
        if not 400 <= error.status < 500:
            return UpstreamFailed("The upstream opened no WebSocket.")
        self.health.succeeded()
        message = f"The upstream refused the WebSocket with status {error.status}."
        return from_status(error.status, message)

    async def models(self) -> list[dict[str, Any]]:
        """The upstream's models, at most `models_ttl_s` old; one request however many ask.

        Raises `UpstreamFailed` or `UpstreamTimeout`; a failure is remembered for two seconds.
        """
        now = asyncio.get_running_loop().time()
        if self._models is None or (self._models.done() and now >= self._models_until):
            self._models = asyncio.create_task(self._fetch_models())
            self._models.add_done_callback(self._keep_models)
        return await asyncio.shield(self._models)

    def _relayed(self, answer: aiohttp.ClientResponse) -> Relayed:
        try:
            with self._translated():
                headers = answer_headers(answer.raw_headers, status=answer.status)
        except UpstreamFailed:
            _cut(answer)
            raise
        if answer.status in DOWN:
            self._failed()
        else:
            self.health.succeeded()
        return Relayed(
            status=answer.status,
            headers=headers,
            body=self._body(answer),
            close=_once(lambda: self._close(answer)),
        )

    def _close(self, answer: aiohttp.ClientResponse) -> None:
        self.outstanding -= 1
        _cut(answer)

    def _failed(self) -> None:
        was_ejected = self.health.is_ejected
        self.health.failed(asyncio.get_running_loop().time())
        if self.health.is_ejected and not was_ejected:
            log.error("upstream_ejected", extra={"upstream": self.name})

    async def _body(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            with self._translated():
                async for piece in answer.content.iter_any():
                    yield piece
        except UpstreamError:
            self._failed()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where the HTTP client's errors become ours; its name stays in the log."""
        try:
            yield
        except TimeoutError as error:
            raise self._late(error) from error
        except (aiohttp.ClientError, OSError) as error:
            self._log("upstream_failed", error)
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            said = "broke off or gave no valid answer" if reached else "could not be reached"
            failed = UpstreamFailed(f"The upstream {said}.")
            failed.was_sent = reached
            raise failed from error
        except UpstreamFailed as error:
            self._log("upstream_failed", error)
            raise

    def _late(self, error: TimeoutError) -> UpstreamTimeout:
        self._log("upstream_timeout", error)
        late = UpstreamTimeout("The upstream did not answer in time.")
        late.was_sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
        return late

    def _log(self, event: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:300]  # may hold bytes that the upstream sent
        told = {"upstream": self.name, "address": self._authority, "reason": repr(reason)}
        log.error(event, extra=told)

    async def _fetch_models(self) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(_LIST_TIMEOUT_S):
                answer = await self.exchange(
                    method="GET",
                    path="/models",
                    query=b"",
                    headers=[(b"accept", b"application/json")],
                    body=b"",
                )
                held = await _held(answer)
        except TimeoutError as error:
            raise self._late(error) from error
        with self._translated():
            return _listed(answer.status, held)

    def _keep_models(self, fetched: asyncio.Task[list[dict[str, Any]]]) -> None:
        failed = fetched.cancelled() or fetched.exception() is not None
        kept_s = (
            min(_FAILURE_KEPT_S, self.config.models_ttl_s) if failed else self.config.models_ttl_s
        )
        self._models_until = fetched.get_loop().time() + kept_s


class _Breaking:
    """Tells who reads an answer that its connection is gone.

    The HTTP client does so itself, but not where it closes the connection because of what came:
    garbage in the middle of a body would leave the reader waiting for ever.
    """

    def __init__(self) -> None:
        self._read: dict[ResponseHandler, aiohttp.StreamReader] = {}

    def watch(self, connection: ResponseHandler, body: aiohttp.StreamReader) -> None:
        """This body is what is read from the connection now."""
        closed = connection.closed
        if closed is None:
            return  # it is gone already, and the client has said so
        if connection not in self._read:
            closed.add_done_callback(lambda done: self._gone(connection, done))
        self._read[connection] = body

    def _gone(self, connection: ResponseHandler, closed: asyncio.Future[None]) -> None:
        body = self._read.pop(connection)
        closed.exception()  # it has been asked for: nobody else does
        if not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("The answer's body is malformed."))


class _Socket:
    """An upstream's WebSocket."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse[bool],
        translated: Callable[[], AbstractContextManager[None]],
        ended: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._translated = translated
        self._ended = _once(ended)
        self._reason = ""

    @property
    def protocol(self) -> str | None:
        return self._socket.protocol

    async def messages(self) -> AsyncIterator[Message]:
        with self._translated():
            while True:
                message = await self._socket.receive()
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._reason = str(message.extra or "")
                    break
                yield message.data
            if message.type is aiohttp.WSMsgType.ERROR:
                raise UpstreamFailed("The upstream's WebSocket broke off.")

    @property
    def closing(self) -> Closing:
        code = self._socket.close_code
        if code is None or code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
            return Closing(code=aiohttp.WSCloseCode.BAD_GATEWAY)
        return Closing(code=code, reason=self._reason)

    async def send(self, message: Message) -> None:
        with self._translated():
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)

    async def close(self, closing: Closing) -> None:
        try:
            await self._socket.close(code=closing.code, message=closing.reason.encode())
        finally:
            self._ended()


class _Patience:
    """Restarts a deadline with every piece the upstream takes; waiting for the client is free."""

    def __init__(self, deadline: asyncio.Timeout, seconds: float) -> None:
        self._deadline = deadline
        self._seconds = seconds

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._reschedule(None)
        async for piece in pieces:
            self._reschedule(self._seconds)
            yield piece
            self._reschedule(None)
        self._reschedule(self._seconds)

    def _reschedule(self, seconds: float | None) -> None:
        now = asyncio.get_running_loop().time()
        with suppress(RuntimeError):  # the answer came before the body's end: nothing to restart
            self._deadline.reschedule(None if seconds is None else now + seconds)


def _own_headers(config: UpstreamConfig) -> list[tuple[str, str]]:
    own = [(name.lower(), value) for name, value in config.headers]
    if config.api_key is None:
        return own
    if config.kind is Kind.AZURE:
        return [*own, ("api-key", config.api_key)]
    return [*own, ("authorization", f"Bearer {config.api_key}")]


def _length_of(body: Body, headers: Headers) -> int | None:
    if isinstance(body, bytes):
        return len(body) if body else None
    given = [value for name, value in headers if name.lower() == b"content-length"]
    return int(given[0]) if given and given[0].isdigit() else None


def _data(body: Body, patience: _Patience) -> bytes | AsyncIterator[bytes] | None:
    if not isinstance(body, bytes):
        return patience.over(body)
    return patience.over(_pieces(body)) if len(body) > _WHOLE_BYTES else body or None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


async def _held(answer: Relayed) -> bytes:
    held = bytearray()
    try:
        async for piece in answer.body:
            held += piece
            if len(held) > _LIST_BYTES:
                break
    finally:
        await answer.aclose()
    return bytes(held)


def _once(close: Callable[[], None]) -> Callable[[], None]:
    is_closed = False

    def close_once() -> None:
        nonlocal is_closed
        if not is_closed:
            is_closed = True
            close()

    return close_once


def _cut(answer: aiohttp.ClientResponse) -> None:
    """Ends an answer: an unread one loses its connection now, without flushing or farewell."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()
    answer.close()


def _listed(status: int, body: bytes) -> list[dict[str, Any]]:
    try:
        listed = orjson.loads(body) if status == 200 else None
    except orjson.JSONDecodeError:
        listed = None
    data = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(data, list):
        raise UpstreamFailed(f"The upstream gave no list of models (status {status}).")
    return [model for model in data if isinstance(model, dict) and isinstance(model.get("id"), str)]
