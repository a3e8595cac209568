"""Headers of relayed requests and answers, and `UpstreamAnswer` (no I/O)."""

import logging
import re
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from llm_backend.backends.upstream.passed_headers import (
    HeaderList,
    answer_allow_list,
    request_allow_list,
)
from llm_backend.errors import InvalidRequest, UpstreamFailed

log = logging.getLogger(__name__)

Headers = Iterable[tuple[bytes, bytes]]
HeaderPairs = Sequence[tuple[bytes, bytes]]
Observe = Callable[[bytes], None]

# Header of the upstream's request id: in its answer, and in the answer to the client, whose
# `x-request-id` is this server's own.
_UPSTREAM_REQUEST_ID = (b"x-request-id", b"x-upstream-request-id")
_REWRITTEN = (b"location", b"x-request-id")
_PATH = re.compile(rb"/(?![/\\])[!-~]*")
_CREATED = 201
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BODILESS_STATUSES = frozenset({204, 304})
_READABLE_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})
_INFLATED_BYTES = 1024 * 1024
_REQUESTS = request_allow_list()
_ANSWERS = answer_allow_list()


@dataclass(frozen=True, kw_only=True)
class UpstreamAnswer:
    """Answer of an upstream; the caller must call `aclose`, also after an error.

    `headers` are those for the client, with names in lower case, in the order that was sent. `body`
    yields bytes as they arrive, without decoding, and raises `UpstreamFailed` or `UpstreamTimeout`
    if the answer breaks off. A reader that finds it invalid calls `report_invalid`, which logs
    it and counts it as a failure of the upstream. `is_complete`: all bytes have arrived.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: AsyncGenerator[bytes, None]
    close: Callable[[], None]
    upstream: str = ""  # its name, for the log
    is_complete: bool = False
    report_invalid: Callable[[UpstreamFailed], None] = lambda _: None

    def header(self, name: bytes) -> bytes | None:
        """Returns the first value of a header, named in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def read(self, limit_bytes: int) -> bytes:
        """Reads the body until it has more than `limit_bytes`, and closes the answer."""
        body = bytearray()
        try:
            async for piece in self.body:
                body += piece
                if len(body) > limit_bytes:
                    break
        finally:
            await self.aclose()
        return bytes(body)

    async def aclose(self) -> None:
        """Returns the connection to the pool, or aborts it if the body was not read to its end."""
        self.close()
        await self.body.aclose()  # else the garbage collector closes it, at any time


def request_headers(
    headers: Headers,
    *,
    own: HeaderPairs = (),
    listed: HeaderList = _REQUESTS,
) -> HeaderPairs:
    """Returns the headers for the upstream: the client's listed ones, and this server's `own`. The
    latter have names in lower case, and replace those of the client."""
    own_names = {name for name, _ in own}
    passed = _end_to_end([(name.lower(), value) for name, value in headers], listed)
    return [*(pair for pair in passed if pair[0] not in own_names), *own]


def as_text(headers: HeaderPairs) -> list[tuple[str, str]]:
    """Returns the headers as text, for a WebSocket. Raises `InvalidRequest` for a value that is not
    UTF-8, which the HTTP client cannot send there."""
    return [(name.decode("latin-1"), _text(name, value)) for name, value in headers]


def answer_headers(
    headers: Headers, *, status: int, listed: HeaderList = _ANSWERS
) -> tuple[tuple[bytes, bytes], ...]:
    """Returns the headers for the client: the listed ones, the upstream's request id as
    `x-upstream-request-id`, and the `Location` of a new object if it is a path.

    Raises `UpstreamFailed` for a status or a header that is not valid in HTTP.
    """
    if not 200 <= status <= 599:
        raise UpstreamFailed("The upstream answered with an invalid HTTP status.")
    pairs = [(name.lower(), value) for name, value in headers]
    passed = _end_to_end(pairs, listed)
    for name, value in passed:
        if _CONTROL.search(value) or not (name in listed.names or _NAME.fullmatch(name)):
            raise UpstreamFailed("The upstream answered with an invalid header.")
    names = {name for name, _ in pairs}
    if b"transfer-encoding" in names or status in _BODILESS_STATUSES:
        passed = [pair for pair in passed if pair[0] != b"content-length"]
    if not names.isdisjoint(_REWRITTEN):
        passed += _rewritten_headers(pairs, status)
    return tuple(passed)


def _rewritten_headers(pairs: HeaderPairs, status: int) -> Iterator[tuple[bytes, bytes]]:
    upstream_name, own_name = _UPSTREAM_REQUEST_ID
    for name, value in pairs:
        if name == upstream_name and not _CONTROL.search(value):
            yield own_name, value
        elif name == b"location" and status == _CREATED and _PATH.fullmatch(value):
            yield name, value


def observable_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Returns the client's headers for an answer that is also parsed while it is relayed.

    Only codings that cannot be decoded here (br, zstd) are removed from `Accept-Encoding`. The
    client gets a coding that it accepts, byte for byte, and this server can parse the answer.
    """
    return [
        (name, _readable(value) if name.lower() == b"accept-encoding" else value)
        for name, value in headers
    ]


def decode_with(observe: Observe, coding: bytes | None) -> Observe | None:
    """Wraps `observe` to decode this `Content-Encoding`; returns None for an unknown coding."""
    name = (coding or b"identity").strip().lower()
    if name == b"identity":
        return observe
    if name in _READABLE_CODINGS:
        return _Inflating(observe).feed
    log.warning("answer_not_observed", extra={"coding": repr(name[:40])})
    return None


class _Inflating:
    """Inflates gzip, zlib or raw deflate in pieces of bounded size; stops at invalid data."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._is_first_chunk = True
        self._is_broken = False

    def feed(self, chunk: bytes) -> None:
        while chunk and not self._is_broken:
            chunk = self._step(chunk)

    def _step(self, chunk: bytes) -> bytes:
        try:
            piece = self._inflate.decompress(chunk, _INFLATED_BYTES)
        except zlib.error:
            self._is_broken = not self._is_first_chunk
            self._is_first_chunk = False
            self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            return chunk
        self._is_first_chunk = False
        if piece:
            self._observe(piece)
        if self._inflate.eof:  # another member of gzip may follow
            rest = self._inflate.unused_data
            self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            return rest
        return self._inflate.unconsumed_tail


def _readable(accepted: bytes) -> bytes:
    codings = [word.strip() for word in accepted.split(b",")]
    passed = [word for word in codings if word.partition(b";")[0].lower() in _READABLE_CODINGS]
    return accepted if passed == codings else b", ".join(passed) or b"identity"


def _end_to_end(lowered: HeaderPairs, listed: HeaderList) -> list[tuple[bytes, bytes]]:
    """Returns the listed headers, except hop-by-hop ones: the fields that `Connection` nominates
    (RFC 9110, 7.6.1)."""
    names = listed.names
    if listed.has_more_than_names:
        passed = [pair for pair in lowered if pair[0] in names or listed.passes(pair[0])]
    else:
        passed = [pair for pair in lowered if pair[0] in names]
    nominating = [value for name, value in lowered if name == b"connection"]
    if not nominating:
        return passed
    nominated = {word.strip().lower() for value in nominating for word in value.split(b",")}
    return [pair for pair in passed if pair[0] not in nominated]


def _text(name: bytes, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The header `{name.decode('latin-1')}` is not UTF-8 and cannot be relayed.",
            param=name.decode("latin-1"),
        ) from error
