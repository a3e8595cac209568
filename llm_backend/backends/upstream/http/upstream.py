"""Upstream: HTTP client of one server with OpenAI's API; bodies are relayed byte for byte."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from llm_backend.backends.upstream.answer_kinds import ANY, JSON_ONLY, Due
from llm_backend.backends.upstream.azure import azure_path, azure_query
from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.backends.upstream.headers import (
    Headers,
    UpstreamAnswer,
    answer_headers,
    request_headers,
)
from llm_backend.backends.upstream.health import Health
from llm_backend.backends.upstream.http.body import Body, BodyTimeout, data_of, length_of
from llm_backend.backends.upstream.http.ending import AbortSignal, cut, once
from llm_backend.backends.upstream.http.holding import held
from llm_backend.backends.upstream.http.session import new_session, new_socket_session, own_headers
from llm_backend.backends.upstream.http.socket import Socket, connect_socket
from llm_backend.backends.upstream.http.translation import ErrorTranslation, redirected, shut_out
from llm_backend.backends.upstream.model_list import ModelList, models_in, read_list
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.backends.upstream.passed_headers import answers_headers, requests_headers
from llm_backend.backends.upstream.retry import DOWN, SHUT_OUT
from llm_backend.backends.upstream.websockets import UpstreamSocket
from llm_backend.errors import ApiError, UpstreamError, UpstreamFailed, from_status

__all__ = ["Upstream"]

log = logging.getLogger(__name__)

_LIST_TIMEOUT_S = 5.0  # a list of all models waits for the slowest upstream


class Upstream:
    """Connection pool to one base URL with one API key; `async with` opens and closes it.

    Sends each request once, with one exception: a GET, PUT or DELETE on a kept-alive connection
    that the upstream closes is retried on a new one (RFC 9110, 9.2.2). Counts its outstanding
    requests, and `health` tracks the results of the latest ones.
    """

    def __init__(self, config: UpstreamConfig, watch: UpstreamObserver | None = None) -> None:
        parts = urlsplit(config.base_url)
        self.config = config
        self.health = Health()
        self.outstanding = 0
        self._watch = watch or UpstreamObserver()
        self._watch.is_up(1)
        self.places = config.concurrency  # permits: limit of outstanding and promised requests
        self.promised = 0  # permits of requests that are about to be sent
        self.on_room: Callable[[], None] = _no_waiter
        self._scheme, self._authority = parts.scheme, parts.netloc
        self._base_path = parts.path.rstrip("/")
        self._own_headers = own_headers(config)
        self._sent_headers = requests_headers(config.pass_headers)
        self._given_headers = answers_headers(config.pass_headers)
        self._idle_timeout_s = config.idle_timeout_s
        self._first_byte_timeout_s = config.first_byte_timeout_s or config.idle_timeout_s
        self._breaking = AbortSignal()
        self._translation = ErrorTranslation(config.name, parts.netloc)
        self._models = ModelList(self._fetch_models, config.models_ttl_s)
        self._session: aiohttp.ClientSession
        self._sockets: aiohttp.ClientSession

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self.config.name

    @property
    def weight(self) -> float:
        """Weight in load balancing."""
        return self.config.weight

    @property
    def has_room(self) -> bool:
        """True if another request may be sent: the upstream is below its concurrency limit."""
        return self.outstanding + self.promised < self.places

    async def __aenter__(self) -> Self:
        self._session = new_session(self.config)
        self._sockets = new_socket_session(self.config, self._session)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._models.close()
        await self._sockets.close()
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
        due: Due = ANY,
        on_left: Callable[[], None] = lambda: None,
    ) -> UpstreamAnswer:
        """Sends one request and returns the answer when its headers have arrived, or when its
        beginning has been validated as `due`.

        `path` is percent-encoded and relative to the base URL, `query` the raw query string. A
        streamed body keeps the `Content-Length` among `headers`, or is sent chunked. `model` is the
        deployment at Azure. `on_left` is called if this is cancelled after the request was sent.
        Raises `UpstreamFailed`, `UpstreamTimeout`, or `InvalidRequest` for a header that cannot be
        sent.
        """
        pairs = list(headers)
        sent = self._headers(pairs, length_of(body, pairs))
        url = self._url(path, query.decode("latin-1"), model)
        self._begin()
        try:
            answer = await self._answer(method, url, sent, body, on_left)
            held = await self._held(answer, due, on_left)
            return self._relayed(answer, held, due)
        except BaseException as error:
            self._gave_nothing(error)
            raise

    def _headers(self, headers: Headers, length: int | None) -> list[tuple[str, str]]:
        own = self._own_headers
        return request_headers(headers, own=own, length=length, listed=self._sent_headers)

    def _begin(self) -> None:
        """Counts a request that begins. Its answer must be closed, or its failure recorded."""
        self._count(1)
        self.health.begin()

    def _gave_nothing(self, error: BaseException) -> None:
        if isinstance(error, UpstreamError):
            self._failed()
        else:
            self.health.left()
        self._ended()

    async def _answer(
        self,
        method: str,
        url: URL,
        headers: list[tuple[str, str]],
        body: Body,
        on_left: Callable[[], None],
    ) -> aiohttp.ClientResponse:
        with self._translation:
            async with BodyTimeout(self._first_byte_timeout_s) as patience:
                try:
                    answer = await self._session.request(
                        method,
                        url,
                        headers=headers,
                        data=data_of(body, patience),
                        allow_redirects=False,
                    )
                except asyncio.CancelledError:
                    if patience.is_running:
                        on_left()
                    raise
        connection = answer.connection
        # Without a connection the answer is complete already.
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = self._idle_timeout_s
            transport = connection.transport
            # While reading is paused, the client is slow, and the upstream has no timeout.
            if transport is not None and transport.is_reading():
                connection.protocol.start_timeout()  # restarts it: the first byte's was running
            self._breaking.watch(connection.protocol, answer.content)
        return answer

    def _url(self, path: str, query: str, model: str | None) -> URL:
        if self.config.kind is UpstreamKind.AZURE:
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
        """Opens a WebSocket; `protocols` are the subprotocols offered.

        Raises as `exchange`, and the error of the status if the upstream refuses the handshake.
        """
        sent = self._headers(headers, None)
        url = self._url(path, query.decode("latin-1"), model)
        self._begin()
        try:
            socket = await self._socket(url, sent, protocols)
        except BaseException as error:
            self._gave_nothing(error)
            raise
        self._succeeded()
        return Socket(socket, self._translation, self._ended)

    async def _socket(
        self, url: URL, headers: list[tuple[str, str]], protocols: Sequence[str]
    ) -> aiohttp.ClientWebSocketResponse[bool]:
        with self._translation:
            async with BodyTimeout(self._first_byte_timeout_s):
                try:
                    return await connect_socket(self._sockets, url, headers, protocols)
                except aiohttp.WSServerHandshakeError as error:
                    raise self._refused(error) from error

    def _ended(self) -> None:
        self._count(-1)
        self.on_room()

    def _refused(self, error: aiohttp.WSServerHandshakeError) -> ApiError:
        """Returns the error for a handshake's status; 4xx statuses pass to the client, except those
        that reject this server's key."""
        if error.status in SHUT_OUT:
            return shut_out(error.status)
        if not 400 <= error.status < 500:
            return UpstreamFailed("The upstream opened no WebSocket.")
        self._succeeded()
        message = f"The upstream refused the WebSocket with status {error.status}."
        return from_status(error.status, message)

    async def models(self) -> list[dict[str, Any]]:
        """Lists the upstream's models, cached for `models_ttl_s`; concurrent callers share a fetch.

        Raises `UpstreamFailed` or `UpstreamTimeout`; a failure is cached for two seconds.
        """
        return await self._models.models()

    async def _held(
        self, answer: aiohttp.ClientResponse, due: Due, on_left: Callable[[], None]
    ) -> Sequence[bytes]:
        """Reads and validates the beginning of a successful answer; returns the pieces read."""
        if not due.has_body(answer.method, answer.status):
            return ()
        try:
            with self._translation:
                return await held(answer, due, limit_bytes=self.config.check_bytes)
        except BaseException as error:
            cut(answer)
            if isinstance(error, asyncio.CancelledError):
                on_left()
            raise

    def _relayed(
        self, answer: aiohttp.ClientResponse, held: Sequence[bytes], due: Due
    ) -> UpstreamAnswer:
        try:
            with self._translation:
                if answer.status in SHUT_OUT:
                    raise shut_out(answer.status)
                if 300 <= answer.status < 400:
                    raise redirected(answer)
                headers = answer_headers(
                    answer.raw_headers, status=answer.status, listed=self._given_headers
                )
        except UpstreamFailed:
            cut(answer)
            raise
        if answer.status in DOWN:
            self._failed()
        else:
            self._answers()
        return UpstreamAnswer(
            status=answer.status,
            headers=headers,
            body=self._body(
                answer, held, has_events=due.events and due.has_body(answer.method, answer.status)
            ),
            close=once(lambda: self._close(answer)),
            upstream=self.name,
            blame=self._blame,
        )

    def _blame(self, error: UpstreamFailed) -> None:
        self._translation.tell(error)
        self._failed()

    def _close(self, answer: aiohttp.ClientResponse) -> None:
        cut(answer)
        self._ended()

    def _count(self, change: int) -> None:
        self.outstanding += change
        self._watch.outstanding(change)

    def _answers(self) -> None:
        if self.health.is_ejected:
            self._watch.is_up(1)
        self.health.answers()

    def _succeeded(self) -> None:
        self._answers()
        self.health.succeeded()

    def _failed(self) -> None:
        was_ejected = self.health.is_ejected
        self.health.failed(asyncio.get_running_loop().time())
        self._watch.failed()
        if self.health.is_ejected and not was_ejected:
            self._watch.is_up(0)
            log.error("upstream_ejected", extra={"upstream": self.name})

    async def _body(
        self, answer: aiohttp.ClientResponse, held: Sequence[bytes], *, has_events: bool
    ) -> AsyncGenerator[bytes, None]:
        is_empty = True
        try:
            for piece in held:
                is_empty = False
                yield piece
            with self._translation:
                async for piece in answer.content.iter_any():
                    is_empty = False
                    yield piece
                if is_empty and has_events:
                    raise UpstreamFailed("The upstream ended its stream before its first event.")
        except UpstreamError:
            self._failed()
            raise
        if answer.status not in DOWN:
            self._succeeded()

    async def _fetch_models(self) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(_LIST_TIMEOUT_S):
                answer = await self.exchange(
                    method="GET",
                    path="/models",
                    query=b"",
                    headers=[(b"accept", b"application/json")],
                    body=b"",
                    due=JSON_ONLY,
                )
                held = await read_list(answer)
        except TimeoutError as error:
            raise self._translation.late(error) from error
        with self._translation:
            return models_in(answer.status, held)


def _no_waiter() -> None:
    """Default callback for a free permit: no request waits."""
