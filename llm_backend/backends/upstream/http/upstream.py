"""Upstream: HTTP client of one server, of any `UpstreamKind`. It sends and returns bodies byte for
byte."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from llm_backend.backends.upstream.answer_kinds import (
    ANY,
    JSON_ONLY,
    AnswerKinds,
    AnswerValidator,
    invalid_answer,
)
from llm_backend.backends.upstream.azure import azure_path, azure_query
from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.backends.upstream.headers import (
    HeaderPairs,
    Headers,
    answer_headers,
    as_text,
    request_headers,
)
from llm_backend.backends.upstream.http.body import length_of
from llm_backend.backends.upstream.http.client import HttpAnswer, HttpClient
from llm_backend.backends.upstream.http.ending import AbortSignal, once
from llm_backend.backends.upstream.http.session import (
    configured_headers,
    new_connector,
    new_socket_session,
)
from llm_backend.backends.upstream.http.translation import (
    ErrorTranslation,
    redirect_error,
    rejected_key_error,
)
from llm_backend.backends.upstream.http.websocket import Socket, connect_socket
from llm_backend.backends.upstream.idle_probe import IdleProbe
from llm_backend.backends.upstream.model_list import (
    LIST_BYTES,
    ModelList,
    list_address,
    parse_checkpoints,
    parse_models,
)
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.backends.upstream.passed_headers import answer_allow_list, request_allow_list
from llm_backend.backends.upstream.retry_rules import DOWN, KEY_REJECTED
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_request import Body
from llm_backend.backends.upstream.upstream_state import AnswerResult, UpstreamState
from llm_backend.backends.upstream.websockets import UpstreamSocket
from llm_backend.errors import ApiError, UpstreamError, UpstreamFailed, from_status
from llm_backend.json_types import JsonObject

_LIST_TIMEOUT_S = 5.0  # `GET /models` waits for the lists of all upstreams


class Upstream(UpstreamState):
    """Connection pool to one base URL with one API key; `async with` opens and closes it.

    Sends each request once, with one exception: an idempotent one is sent a second time, on another
    connection, if the first breaks before an answer (RFC 9110, 9.2.2). The upstream may have closed
    a kept-alive connection while the request was sent on it.
    """

    def __init__(self, config: UpstreamConfig, observer: UpstreamObserver | None = None) -> None:
        super().__init__(config, observer or UpstreamObserver())
        parts = urlsplit(config.base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._base_path = parts.path.rstrip("/")
        self._configured_headers = configured_headers(config)
        self._request_headers = request_allow_list(config.pass_headers)
        self._answer_headers = answer_allow_list(config.pass_headers)
        self._idle_timeout_s = config.idle_timeout_s
        self._handshake_timeout_s = config.connect_timeout_s + config.answer_timeout_s
        self._abort_signal = AbortSignal()
        self._translation = ErrorTranslation(config.name, parts.netloc)
        self._models = ModelList(self._fetch_models, config.models_ttl_s)
        self._probe = IdleProbe(self._probe_once, lambda: self.health.is_ejected)
        self.on_ejected = self._probe.schedule
        self._connector: aiohttp.BaseConnector
        self._client: HttpClient
        self._sockets: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._connector = new_connector(self.config)
        self._client = HttpClient(self.config, self._connector)
        self._sockets = new_socket_session(self.config, self._connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._probe.close()
        self._models.close()
        await self._sockets.close()
        await self._connector.close()

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
        is_recorded: bool = True,
    ) -> UpstreamAnswer:
        """Sends one request and returns the answer when its headers have arrived, or when its
        beginning has been validated as `expected`.

        `path` is percent-encoded and relative to the base URL, `query` the raw query string. A
        streamed body keeps the `Content-Length` among `headers`, or is sent chunked. `model` is the
        deployment at Azure. `on_abandoned` is called if this is cancelled after the request was
        sent. `is_recorded`: the result counts for the upstream's health. Raises `UpstreamFailed`
        and `UpstreamTimeout`.
        """
        pairs = list(headers)
        target = self._target(path, query.decode("latin-1"), model)
        epoch = self._begin_request(is_recorded=is_recorded)
        try:
            with self._translation:
                answer = await self._client.send(
                    method,
                    target,
                    self._headers(pairs),
                    body,
                    length=length_of(body, pairs),
                    on_abandoned=on_abandoned,
                )
                try:
                    self._limit_idle_time(answer)
                    pieces = await self._validate_start(answer, expected, on_abandoned)
                    return self._to_answer(answer, target, pieces, expected, epoch)
                except BaseException:
                    answer.abort()
                    raise
        except BaseException as error:
            self._record_no_answer(error, epoch)
            raise

    def _headers(self, headers: Headers) -> HeaderPairs:
        return request_headers(headers, own=self._configured_headers, listed=self._request_headers)

    def _limit_idle_time(self, answer: HttpAnswer) -> None:
        protocol = answer.protocol
        if protocol is None:
            return  # the answer is complete
        protocol.read_timeout = self._idle_timeout_s
        # Reading is paused while the client is slow: then no timeout runs for the upstream.
        if protocol.transport is not None and protocol.transport.is_reading():
            protocol.start_timeout()
        self._abort_signal.watch(protocol, answer.content)

    def _target(self, path: str, query: str, model: str | None) -> str:
        """Returns the request target: path and query, percent-encoded."""
        if self.config.kind is UpstreamKind.AZURE:
            path = azure_path(path, None if model is None else quote(model, safe=""))
            query = azure_query(query, self.config.api_version)
        path = self._base_path + path
        return f"{path}?{query}" if query else path

    def _url(self, target: str) -> URL:
        return URL(f"{self._origin}{target}", encoded=True)

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
        sent = as_text(self._headers(headers))
        url = self._url(self._target(path, query.decode("latin-1"), model))
        epoch = self._begin_request()
        try:
            socket = await self._socket(url, sent, protocols, epoch)
        except BaseException as error:
            self._record_no_answer(error, epoch)
            raise
        self.record_success(epoch)
        return Socket(socket, self._translation, self._end_request)

    async def _socket(
        self, url: URL, headers: list[tuple[str, str]], protocols: Sequence[str], epoch: int
    ) -> aiohttp.ClientWebSocketResponse[bool]:
        with self._translation:
            try:
                async with asyncio.timeout(self._handshake_timeout_s):
                    return await connect_socket(self._sockets, url, headers, protocols)
            except aiohttp.WSServerHandshakeError as error:
                raise self._handshake_error(error, epoch) from error

    def _handshake_error(self, error: aiohttp.WSServerHandshakeError, epoch: int) -> ApiError:
        """Returns the error for a handshake's status; 4xx statuses pass to the client, except those
        that reject this server's key."""
        if error.status in KEY_REJECTED:
            return rejected_key_error(error.status)
        if not 400 <= error.status < 500:
            return UpstreamFailed("The upstream opened no WebSocket.")
        self.record_success(epoch)
        message = f"The upstream refused the WebSocket with status {error.status}."
        return from_status(error.status, message)

    async def models(self) -> list[JsonObject]:
        """Lists the upstream's models, cached for `models_ttl_s`; concurrent callers share a fetch.

        Raises `UpstreamFailed` or `UpstreamTimeout`; a failure is cached for two seconds.
        """
        return await self._models.models()

    async def _validate_start(
        self, answer: HttpAnswer, expected: AnswerKinds, on_abandoned: Callable[[], None]
    ) -> Sequence[bytes]:
        """Reads and validates the beginning of a successful answer; returns the pieces read."""
        if not expected.requires_body(answer.method, answer.status):
            return ()
        try:
            return await read_start(answer, expected, limit_bytes=self.config.check_bytes)
        except asyncio.CancelledError:
            on_abandoned()
            raise

    def _to_answer(
        self,
        answer: HttpAnswer,
        target: str,
        pieces: Sequence[bytes],
        expected: AnswerKinds,
        epoch: int,
    ) -> UpstreamAnswer:
        status = answer.status
        if status in KEY_REJECTED:
            raise rejected_key_error(status)
        if 300 <= status < 400:
            location = answer.headers.get("location", "")
            raise redirect_error(self._url(target), status, location)
        headers = answer_headers(answer.raw_headers, status=status, listed=self._answer_headers)
        result = AnswerResult(self, epoch)
        if status in DOWN:
            result.fail()
        else:
            self._record_answer_start(epoch)
        has_events = expected.events and expected.requires_body(answer.method, status)
        return UpstreamAnswer(
            status=status,
            headers=headers,
            body=self._body(answer, pieces, result, has_events=has_events),
            close=once(lambda: self._close(answer)),
            upstream=self.name,
            is_complete=answer.protocol is None,
            report_invalid=lambda error: self._report_invalid(error, result),
        )

    def _report_invalid(self, error: UpstreamFailed, result: AnswerResult) -> None:
        self._translation.log_invalid(error)
        result.fail()

    def _close(self, answer: HttpAnswer) -> None:
        answer.abort()
        self._end_request()

    async def _body(
        self,
        answer: HttpAnswer,
        pieces: Sequence[bytes],
        result: AnswerResult,
        *,
        has_events: bool,
    ) -> AsyncGenerator[bytes, None]:
        is_empty = True
        try:
            for piece in pieces:
                is_empty = False
                yield piece
            with self._translation:
                content = answer.content
                while not content.at_eof() and (piece := await content.readany()):
                    is_empty = False
                    yield piece
                if is_empty and has_events:
                    raise UpstreamFailed("The upstream ended its stream before its first event.")
        except UpstreamError:
            result.fail()
            raise
        result.succeed()

    async def _probe_once(self) -> None:
        status, _ = await self._fetch_list()
        if status not in DOWN:
            self.record_success(self.health.record_request())

    async def _fetch_models(self) -> list[JsonObject]:
        status, body = await self._fetch_list()
        with self._translation:
            if self.config.is_image_server:
                return parse_checkpoints(status, body)
            return parse_models(status, body)

    async def _fetch_list(self) -> tuple[int, bytes]:
        """Returns status and body of the list of models. It says little about other requests: they
        may fail nevertheless, or be answered although the key may not list models."""
        path, query = list_address(self.config)
        try:
            async with asyncio.timeout(_LIST_TIMEOUT_S):
                answer = await self.exchange(
                    method="GET",
                    path=path,
                    query=query.encode(),
                    headers=[(b"accept", b"application/json")],
                    body=b"",
                    expected=JSON_ONLY,
                    is_recorded=False,
                )
                return answer.status, await answer.read(LIST_BYTES)
        except TimeoutError as error:
            raise self._translation.timeout_error(error) from error


async def read_start(
    answer: HttpAnswer, expected: AnswerKinds, *, limit_bytes: int
) -> Sequence[bytes]:
    """Reads as much of an answer as its validation needs, and returns these pieces. Raises
    `UpstreamFailed` if it is not of an expected kind, and the HTTP client's errors."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not expected.is_validated:
        if kind == "text/html" and not expected.html:
            raise invalid_answer("a page")
        return ()
    is_empty = answer.headers.get("content-length") == "0"
    if expected.events and kind == "text/event-stream" and not is_empty:
        return ()  # without waiting: an event may take long; an empty stream is noticed at its end
    coding = answer.headers.get("content-encoding", "identity").encode()
    validator = AnswerValidator(expected, coding=coding, limit_bytes=limit_bytes)
    if validator.passes:
        return ()
    content = answer.content
    while not content.at_eof() and (piece := await content.readany()):
        validator.feed(piece)
        if validator.passes:
            return validator.pieces
    validator.end()
    return validator.pieces
