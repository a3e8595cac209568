"""Bounds of a JSON body, checked before it is parsed: number of values, bytes of text (pure).

A parser holds the GIL until it has read everything, so a large body delays every other request.
Files in base64 cost little; text with escapes or wide characters costs more, and each value costs
far more than its bytes.
"""

import re

from llm_backend.errors import TooLarge

FILE_BYTES = 4096  # base64 of this length is a file: no text is so long without a space
_BLOCK_BYTES = FILE_BYTES // 2  # a file covers a whole block, at any offset
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_NODES = (b",", b":", b"[", b"{")
_STRETCH_BYTES = 1024 * 1024  # scanned per call of `_marks`
_ESCAPES = re.compile(rb'(?:\\.[^"\\]{0,64}+){0,4096}+', re.DOTALL)


def check_size(body: bytes, *, nodes_limit: int, text_limit_bytes: int) -> None:
    """Raises `TooLarge` for more values and field names than `nodes_limit`, or for more text than
    `text_limit_bytes` without files in base64."""
    if len(body) > nodes_limit and _has_more_nodes(body, nodes_limit):
        raise TooLarge(
            f"The body holds more than {nodes_limit} JSON values and names of fields, this "
            "server's limit (`json_nodes_limit`)."
        )
    if len(body) > text_limit_bytes and text_bytes(body) > text_limit_bytes:
        raise TooLarge(
            f"The body holds more than {text_limit_bytes} bytes of text besides files in base64, "
            "which is this server's limit (`json_text_limit_bytes`)."
        )


def text_bytes(body: bytes) -> int:
    """Counts the bytes of a body; each file in base64 within it counts as `FILE_BYTES`."""
    if len(body) < FILE_BYTES:
        return len(body)
    saved = length = 0  # `length`: of the base64 that ends where this block begins
    for start in range(0, len(body), _BLOCK_BYTES):
        block = body[start : start + _BLOCK_BYTES]
        if not block.translate(None, _BASE64):
            length += len(block)
            continue
        length += len(block) - len(block.lstrip(_BASE64))
        saved += max(0, length - FILE_BYTES)
        length = len(block) - len(block.rstrip(_BASE64))
    return len(body) - saved - max(0, length - FILE_BYTES)


def _has_more_nodes(body: bytes, limit: int) -> bool:
    """True if the body has more nodes than `limit`. First counts marks everywhere, which is cheap
    and suffices for most bodies, then only marks outside of strings."""
    count = 0
    for start in range(0, len(body), _STRETCH_BYTES):
        count += _marks(body, start, start + _STRETCH_BYTES)
        if count > limit:
            return _has_more_marks_outside(body, limit)
    return False


def _has_more_marks_outside(body: bytes, limit: int) -> bool:
    count = end = 0
    while count <= limit:
        start = body.find(b'"', end)
        count += _marks(body, end, len(body) if start < 0 else start)
        if start < 0:
            break
        end = _string_end(body, start + 1)
    return count > limit


def _string_end(body: bytes, offset: int) -> int:
    """Returns the offset after the closing quote of the string around `offset`."""
    while (end := body.find(b'"', offset)) >= 0:
        escape = body.find(b"\\", offset, end)
        if escape < 0:
            return end + 1
        offset = _ESCAPES.match(body, escape).end()  # type: ignore[union-attr]  # it matches anywhere
    return len(body)


def _marks(body: bytes, start: int, end: int) -> int:
    return sum(body.count(mark, start, end) for mark in _NODES)
