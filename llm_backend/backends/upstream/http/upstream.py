"""Upstream: HTTP client of one server with OpenAI's API; bodies are relayed byte for byte."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from llm_backend.backends.upstream.answer_kinds import ANY, JSON_ONLY, AnswerKinds
from llm_backend.backends.upstream.azure import azure_path, azure_query
from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.backends.upstream.headers import (
    Headers,
    UpstreamAnswer,
    answer_headers,
    request_headers,
)
from llm_backend.backends.upstream.http.answer_start import read_start
from llm_backend.backends.upstream.http.body import Body, BodyTimeout, data_of, length_of
from llm_backend.backends.upstream.http.ending import AbortSignal, abort, once
from llm_backend.backends.upstream.http.session import new_session, new_socket_session, own_headers
from llm_backend.backends.upstream.http.socket import Socket, connect_socket
from llm_backend.backends.upstream.http.translation import (
    ErrorTranslation,
    redirect_error,
    rejected_key_error,
)
from llm_backend.backends.upstream.model_list import LIST_BYTES, ModelList, models_in
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.backends.upstream.passed_headers import answers_headers, requests_headers
from llm_backend.backends.upstream.retry import DOWN, KEY_REJECTED
from llm_backend.backends.upstream.upstream_load import UpstreamLoad
from llm_backend.backends.upstream.websockets import UpstreamSocket
from llm_backend.errors import ApiError, UpstreamError, UpstreamFailed, from_status
from llm_backend.json_types import JsonObject

log = logging.getLogger(__name__)

_LIST_TIMEOUT_S = 5.0  # a list of all models waits for the slowest upstream


class Upstream(UpstreamLoad):
    """Connection pool to one base URL with one API key; `async with` opens and closes it.

    Sends each request once, with one exception: a GET, PUT or DELETE on a kept-alive connection
    that the upstream closes is retried on a new one (RFC 9110, 9.2.2).
    """

    def __init__(self, config: UpstreamConfig, observer: UpstreamObserver | None = None) -> None:
        super().__init__(config, observer or UpstreamObserver())
        parts = urlsplit(config.base_url)
        self._scheme, self._authority = parts.scheme, parts.netloc
        self._base_path = parts.path.rstrip("/")
        self._own_headers = own_headers(config)
        self._request_headers = requests_headers(config.pass_headers)
        self._answer_headers = answers_headers(config.pass_headers)
        self._idle_timeout_s = config.idle_timeout_s
        self._first_byte_timeout_s = config.first_byte_timeout_s or config.idle_timeout_s
        self._abort_signal = AbortSignal()
        self._translation = ErrorTranslation(config.name, parts.netloc)
        self._models = ModelList(self._fetch_models, config.models_ttl_s)
        self._session: aiohttp.ClientSession
        self._sockets: aiohttp.ClientSession

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
        expected: AnswerKinds = ANY,
        on_abandoned: Callable[[], None] = lambda: None,
    ) -> UpstreamAnswer:
        """Sends one request and returns the answer when its headers have arrived, or when its
        beginning has been validated as `expected`.

        `path` is percent-encoded and relative to the base URL, `query` the raw query string. A
        streamed body keeps the `Content-Length` among `headers`, or is sent chunked. `model` is the
        deployment at Azure. `on_abandoned` is called if this is cancelled after the request was
        sent. Raises `UpstreamFailed`, `UpstreamTimeout`, or `InvalidRequest` for an invalid
        header.
        """
        pairs = list(headers)
        sent = self._headers(pairs, length_of(body, pairs))
        url = self._url(path, query.decode("latin-1"), model)
        self._begin_request()
        try:
            answer = await self._answer(method, url, sent, body, on_abandoned)
            pieces = await self._validate_start(answer, expected, on_abandoned)
            return self._to_answer(answer, pieces, expected)
        except BaseException as error:
            self._record_no_answer(error)
            raise

    def _headers(self, headers: Headers, length: int | None) -> list[tuple[str, str]]:
        own = self._own_headers
        return request_headers(headers, own=own, length=length, listed=self._request_headers)

    async def _answer(
        self,
        method: str,
        url: URL,
        headers: list[tuple[str, str]],
        body: Body,
        on_abandoned: Callable[[], None],
    ) -> aiohttp.ClientResponse:
        with self._translation:
            async with BodyTimeout(self._first_byte_timeout_s) as body_timeout:
                try:
                    answer = await self._session.request(
                        method,
                        url,
                        headers=headers,
                        data=data_of(body, body_timeout),
                        allow_redirects=False,
                    )
                except asyncio.CancelledError:
                    if body_timeout.is_running:
                        on_abandoned()
                    raise
        connection = answer.connection
        # Without a connection the answer is complete already.
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = self._idle_timeout_s
            transport = connection.transport
            # Reading is paused while the client is slow: then no timeout runs for the upstream.
            if transport is not None and transport.is_reading():
                # Replaces the first-byte timeout, which is still running.
                connection.protocol.start_timeout()
            self._abort_signal.watch(connection.protocol, answer.content)
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
        self._begin_request()
        try:
            socket = await self._socket(url, sent, protocols)
        except BaseException as error:
            self._record_no_answer(error)
            raise
        self._record_success()
        return Socket(socket, self._translation, self._end_request)

    async def _socket(
        self, url: URL, headers: list[tuple[str, str]], protocols: Sequence[str]
    ) -> aiohttp.ClientWebSocketResponse[bool]:
        with self._translation:
            async with BodyTimeout(self._first_byte_timeout_s):
                try:
                    return await connect_socket(self._sockets, url, headers, protocols)
                except aiohttp.WSServerHandshakeError as error:
                    raise self._handshake_error(error) from error

    def _handshake_error(self, error: aiohttp.WSServerHandshakeError) -> ApiError:
        """Returns the error for a handshake's status; 4xx statuses pass to the client, except those
        that reject this server's key."""
        if error.status in KEY_REJECTED:
            return rejected_key_error(error.status)
        if not 400 <= error.status < 500:
            return UpstreamFailed("The upstream opened no WebSocket.")
        self._record_success()
        message = f"The upstream refused the WebSocket with status {error.status}."
        return from_status(error.status, message)

    async def models(self) -> list[JsonObject]:
        """Lists the upstream's models, cached for `models_ttl_s`; concurrent callers share a fetch.

        Raises `UpstreamFailed` or `UpstreamTimeout`; a failure is cached for two seconds.
        """
        return await self._models.models()

    async def _validate_start(
        self,
        answer: aiohttp.ClientResponse,
        expected: AnswerKinds,
        on_abandoned: Callable[[], None],
    ) -> Sequence[bytes]:
        """Reads and validates the beginning of a successful answer; returns the pieces read."""
        if not expected.has_body(answer.method, answer.status):
            return ()
        try:
            with self._translation:
                return await read_start(answer, expected, limit_bytes=self.config.check_bytes)
        except BaseException as error:
            abort(answer)
            if isinstance(error, asyncio.CancelledError):
                on_abandoned()
            raise

    def _to_answer(
        self, answer: aiohttp.ClientResponse, pieces: Sequence[bytes], expected: AnswerKinds
    ) -> UpstreamAnswer:
        try:
            with self._translation:
                if answer.status in KEY_REJECTED:
                    raise rejected_key_error(answer.status)
                if 300 <= answer.status < 400:
                    raise redirect_error(answer)
                headers = answer_headers(
                    answer.raw_headers, status=answer.status, listed=self._answer_headers
                )
        except UpstreamFailed:
            abort(answer)
            raise
        if answer.status in DOWN:
            self._record_failure()
        else:
            self._record_answer_start()
        return UpstreamAnswer(
            status=answer.status,
            headers=headers,
            body=self._body(
                answer,
                pieces,
                has_events=expected.events and expected.has_body(answer.method, answer.status),
            ),
            close=once(lambda: self._close(answer)),
            upstream=self.name,
            report_invalid=self._report_invalid,
        )

    def _report_invalid(self, error: UpstreamFailed) -> None:
        self._translation.log_invalid(error)
        self._record_failure()

    def _close(self, answer: aiohttp.ClientResponse) -> None:
        abort(answer)
        self._end_request()

    async def _body(
        self, answer: aiohttp.ClientResponse, pieces: Sequence[bytes], *, has_events: bool
    ) -> AsyncGenerator[bytes, None]:
        is_empty = True
        try:
            for piece in pieces:
                is_empty = False
                yield piece
            with self._translation:
                async for piece in answer.content.iter_any():
                    is_empty = False
                    yield piece
                if is_empty and has_events:
                    raise UpstreamFailed("The upstream ended its stream before its first event.")
        except UpstreamError:
            self._record_failure()
            raise
        if answer.status not in DOWN:
            self._record_success()

    async def _fetch_models(self) -> list[JsonObject]:
        try:
            async with asyncio.timeout(_LIST_TIMEOUT_S):
                answer = await self.exchange(
                    method="GET",
                    path="/models",
                    query=b"",
                    headers=[(b"accept", b"application/json")],
                    body=b"",
                    expected=JSON_ONLY,
                )
                body = await answer.read(LIST_BYTES)
        except TimeoutError as error:
            raise self._translation.timeout_error(error) from error
        with self._translation:
            return models_in(answer.status, body)
