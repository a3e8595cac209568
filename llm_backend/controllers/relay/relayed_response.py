"""HTTP response that passes an upstream's answer to the client, byte for byte."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_backend.backends.upstream.content_coding import Observe, decode_with
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_errors import ERROR_BYTES, error_fields, is_documented
from llm_backend.controllers.relay.relay_disconnect import (
    CancelOnRelayDisconnect,
    RequestBodyStream,
)
from llm_backend.controllers.rendering.closing_stream import one_piece, prepend
from llm_backend.error_bodies import error_body_for, speaks_ollama
from llm_backend.errors import ApiError, from_status
from llm_backend.stream_ending import StreamEnding

log = logging.getLogger(__name__)

# Quotes inside JSON strings are escaped, so no string can match this.
_ERROR_FIELD = re.compile(rb'"error"\s*:\s*\{')
_TEXT_TYPES = (b"application/json", b"text/plain")
_HTML_TYPES = (b"text/html", b"application/xhtml")
_BODY_HEADERS = (b"content-", b"accept-ranges", b"cache-control", b"etag", b"last-modified")

Finish = Callable[[], Awaitable[None] | None]
"""Called at the end of an answer; its result, if any, is awaited."""


async def documented_error(relayed: UpstreamAnswer, http: HttpRequest) -> UpstreamAnswer:
    """Rewrites an error that lacks the document's form (an HTML page, often of a proxy, JSON of
    another shape, a text, or an empty body) to that form, with the same status. Returns other
    answers unchanged, also those that are compressed, longer than `ERROR_BYTES` or of another
    content type.

    Raises `UpstreamFailed` and `UpstreamTimeout` if the body of an error breaks off.
    """
    if http.method == "HEAD":
        return relayed
    kind = (relayed.header(b"content-type") or b"").strip().lower()
    if kind.startswith(_HTML_TYPES):
        log.warning(
            "upstream_sent_html", extra={"upstream": relayed.upstream, "status": relayed.status}
        )
        return _with_error(
            relayed, http, "The upstream, or a proxy in front of it, answered with a page and the "
            f"status {relayed.status}.",
        )  # fmt: skip
    if (kind and not kind.startswith(_TEXT_TYPES)) or relayed.header(b"content-encoding"):
        return relayed
    return await _with_documented_body(relayed, http)


async def _with_documented_body(relayed: UpstreamAnswer, http: HttpRequest) -> UpstreamAnswer:
    read = bytearray()
    try:
        async for piece in relayed.body:
            read += piece
            if len(read) > ERROR_BYTES:  # too long to be rewritten
                return replace(relayed, body=prepend(bytes(read), relayed.body))
    except BaseException:  # also of a cancelled request, whose connection must be freed
        await relayed.aclose()
        raise
    body = bytes(read)
    if is_documented(body) or speaks_ollama(http.url.path):
        return replace(relayed, body=prepend(body, relayed.body))
    message = error_fields(body).get("message")
    unexplained = f"The upstream answered with the status {relayed.status}."
    return _with_error(relayed, http, message if isinstance(message, str) else unexplained)


def _with_error(relayed: UpstreamAnswer, http: HttpRequest, message: str) -> UpstreamAnswer:
    body = orjson.dumps(error_body_for(http.url.path, from_status(relayed.status, message)))
    headers = [one for one in relayed.headers if not one[0].startswith(_BODY_HEADERS)]
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return replace(relayed, headers=tuple(headers), body=one_piece(body), is_complete=True)


class RelayedResponse(Response):
    """An upstream's answer, sent chunk by chunk. It is cut off if either side disconnects.

    `path` is the request's; the form of the error that ends a broken stream depends on it.
    """

    def __init__(
        self,
        relayed: UpstreamAnswer,
        upload: RequestBodyStream,
        *,
        path: str,
        extra_headers: Sequence[tuple[bytes, bytes]],
        observe: Observe | None,
        finish: Finish | None,
    ) -> None:
        self.status_code = relayed.status
        self.raw_headers = [*relayed.headers, *extra_headers]
        self.background = None
        self.body = b""
        self._relayed = relayed
        self._upload = upload
        is_good = 200 <= relayed.status < 300
        self._observe = (
            decode_with(observe, relayed.header(b"content-encoding"))
            if observe and is_good
            else None
        )
        self._ending = StreamEnding(relayed.headers, path)
        self._may_contain_error = is_good and self._ending.is_readable
        self._finish = finish
        self._finishing: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._relayed.is_complete:
                await self._send_all(send)  # a disconnect has nothing to cancel
            else:
                async with CancelOnRelayDisconnect(receive, self._upload):
                    await self._send_all(send)
        finally:
            await self._relayed.aclose()
            await self._finish_and_log()

    async def discard(self) -> None:
        """Closes the upstream's answer without sending it."""
        await self._relayed.aclose()

    async def _send_all(self, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        is_over = False
        try:
            async for chunk in self._relayed.body:
                if self._may_contain_error and b'"error"' in chunk:
                    self._log_stream_error(chunk)
                if self._observe is not None:
                    self._observe(chunk)
                if self._ending.feed(chunk):
                    await self._run_finish()
                    is_over = self._ending.has_length
                await send({"type": "http.response.body", "body": chunk, "more_body": not is_over})
            await self._run_finish()
        except ApiError as error:
            error_event = self._ending.error_event(error)
            if error_event is None:
                # No final `http.response.body` is sent, so that the server closes the connection
                # and the client sees that the answer is incomplete.
                log.error("answer_cut", extra={"code": error.code})
                return
            await send({"type": "http.response.body", "body": error_event, "more_body": True})
        if not is_over:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _log_stream_error(self, chunk: bytes) -> None:
        """Logs the upstream if a chunk of its successful answer has an error."""
        if _ERROR_FIELD.search(chunk):
            log.warning("upstream_stream_error", extra={"upstream": self._relayed.upstream})
            self._may_contain_error = False

    async def _run_finish(self) -> None:
        """Calls `finish` at most once. Its awaitable is not cancelled when the client
        disconnects."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            if (rest := finish()) is not None:
                self._finishing = asyncio.ensure_future(rest)
        if self._finishing is not None:
            await asyncio.shield(self._finishing)

    async def _finish_and_log(self) -> None:
        try:
            await self._run_finish()
        except ApiError as error:
            log.warning("answer_not_finished", extra={"code": error.code})
