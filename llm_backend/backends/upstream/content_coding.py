"""Content codings of answers that are also parsed while they are relayed: gzip and deflate are
decoded for the parser, and no other coding is asked for (no I/O)."""

import logging
import zlib
from collections.abc import Callable

from llm_backend.backends.upstream.headers import Headers

log = logging.getLogger(__name__)

Observe = Callable[[bytes], None]
"""Gets the bytes of an answer as they are relayed."""
_READABLE_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})
_INFLATED_BYTES = 1024 * 1024


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
