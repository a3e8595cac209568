"""One upstream that speaks OpenAI's API: bytes out as they came in, bytes back as they were sent.

The only module that imports the HTTP client; it is imported only where an upstream is configured.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from llm_backend.backends.relayed import Headers, Relayed, answer_headers, request_headers
from llm_backend.errors import UpstreamFailed, UpstreamTimeout

__all__ = ["Upstream"]

log = logging.getLogger(__name__)

Body = bytes | AsyncIterator[bytes]

_NO_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_HEADER_BYTES = 64 * 1024
_HEADER_COUNT = 256
_PIECE_BYTES = 256 * 1024
_WHOLE_BYTES = 1024 * 1024  # larger bodies go out in pieces, so that the loop is never held up
_LIST_BYTES = 16 * 1024 * 1024
_FAILURE_KEPT_S = 2.0
# Below the 5 s after which uvicorn and Node close an idle connection: a request never meets one
# that is being closed.
_KEEPALIVE_S = 4.0


class Upstream:
    """A connection pool to one base URL with one key; `async with` opens and closes it.

    Sends each request once, but for one case: a GET, PUT or DELETE whose kept connection was
    closed under it goes out again on a new one (RFC 9110, 9.2.2).
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        connect_timeout_s: float = 10,
        idle_timeout_s: float = 600,
        connection_limit: int = 1000,
        models_ttl_s: float = 30,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ValueError("An upstream's base URL must be http(s)://HOST[:PORT][/PATH].")
        self.name = parts.netloc
        self._scheme = parts.scheme
        self._base_path = parts.path.rstrip("/")
        self._authorization = f"Bearer {api_key}" if api_key else None
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._connection_limit = connection_limit
        self._models_ttl_s = models_ttl_s
        self._models: asyncio.Task[list[dict[str, Any]]] | None = None
        self._models_until = 0.0
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connection_limit, keepalive_timeout=_KEEPALIVE_S
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._connect_timeout_s, sock_read=self._idle_timeout_s
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
        self, *, method: str, path: str, query: bytes, headers: Headers, body: Body
    ) -> Relayed:
        """Sends one request and returns the answer as soon as its headers are there.

        `path` is percent-encoded and relative to the base URL, `query` the raw query string; a
        streamed body keeps the `Content-Length` among `headers`, or goes out chunked. Raises
        `UpstreamFailed`, `UpstreamTimeout`, or `InvalidRequest` for a header that cannot be sent.
        """
        pairs = list(headers)
        sent = request_headers(
            pairs, authorization=self._authorization, length=_length_of(body, pairs)
        )
        url = URL.build(
            scheme=self._scheme,
            authority=self.name,
            path=self._base_path + path,
            query_string=query.decode("latin-1"),
            encoded=True,
        )
        with self._translated():
            async with asyncio.timeout(self._idle_timeout_s) as deadline:
                answer = await self._session.request(
                    method,
                    url,
                    headers=sent,
                    data=_data(body, _Patience(deadline, self._idle_timeout_s)),
                    allow_redirects=False,
                )
        return self._relayed(answer)

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
        return Relayed(
            status=answer.status,
            headers=headers,
            body=self._body(answer),
            close=lambda: _cut(answer),
        )

    async def _body(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with self._translated():
            async for piece in answer.content.iter_any():
                yield piece

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where the HTTP client's errors become ours; its name stays in the log."""
        try:
            yield
        except TimeoutError as error:
            self._log("upstream_timeout", error)
            raise UpstreamTimeout("The upstream did not answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            self._log("upstream_failed", error)
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            said = "broke off or gave no valid answer" if reached else "could not be reached"
            raise UpstreamFailed(f"The upstream {said}.") from error
        except UpstreamFailed as error:
            self._log("upstream_failed", error)
            raise

    def _log(self, event: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:300]  # may hold bytes that the upstream sent
        log.error(event, extra={"upstream": self.name, "reason": repr(reason)})

    async def _fetch_models(self) -> list[dict[str, Any]]:
        answer = await self.exchange(
            method="GET",
            path="/models",
            query=b"",
            headers=[(b"accept", b"application/json")],
            body=b"",
        )
        held = bytearray()
        try:
            async for piece in answer.body:
                held += piece
                if len(held) > _LIST_BYTES:
                    break
        finally:
            await answer.aclose()
        with self._translated():
            return _listed(answer.status, bytes(held))

    def _keep_models(self, fetched: asyncio.Task[list[dict[str, Any]]]) -> None:
        failed = fetched.cancelled() or fetched.exception() is not None
        kept_s = min(_FAILURE_KEPT_S, self._models_ttl_s) if failed else self._models_ttl_s
        self._models_until = fetched.get_loop().time() + kept_s


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
