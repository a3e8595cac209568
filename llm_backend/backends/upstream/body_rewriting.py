"""Rewriting of one value in a JSON request body; all other bytes stay the same (pure)."""

import re
from collections.abc import Iterator

import orjson

# A string, or a structural character; everything between is skipped. The quantifiers are possessive
# (no backtracking state), since a string may be an image of many megabytes.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]', re.DOTALL)
_BLANK = b" \t\r\n"

Span = tuple[int, int]


def rename_model(body: bytes, model: str) -> bytes:
    """Replaces each string value of `model` at the top level of the JSON object `body`."""
    spans = [span for span in _values_of(body, "model") if body[span[0]] == ord('"')]
    return _replace_values(body, spans, orjson.dumps(model))


def with_value(body: bytes, key: str, value: str | bool) -> bytes:
    """Sets `key` at the top level of the JSON object `body`; replaces every duplicate of it."""
    spans = list(_values_of(body, key))
    if spans:
        return _replace_values(body, spans, orjson.dumps(value))
    start = body.index(b"{") + 1
    is_alone = body[start:].lstrip(_BLANK).startswith(b"}")
    added = orjson.dumps({key: value})[1:-1] + (b"" if is_alone else b",")
    return b"".join([body[:start], added, body[start:]])


def _replace_values(body: bytes, spans: list[Span], value: bytes) -> bytes:
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [body[end:start], value]
        end = stop
    return b"".join([*pieces, body[end:]])


def _values_of(body: bytes, name: str) -> Iterator[Span]:
    """Yields the positions of a key's values in the outermost object."""
    depth = 0
    key: bytes | None = None
    start: int | None = None
    for token in _TOKEN.finditer(body):
        mark = token[0]
        if mark in b"{[":
            depth += 1
        elif mark in b"}],":
            is_end = depth == 1 and mark != b"]"
            depth -= mark != b","
            if is_end:
                if start is not None:
                    yield _trim_blanks(body, start, token.start())
                key = start = None
        elif depth == 1 and mark == b":":
            is_it = key is not None and orjson.loads(key) == name
            start = token.end() if is_it else None
        elif depth == 1 and key is None:
            key = mark


def _trim_blanks(body: bytes, start: int, stop: int) -> Span:
    value = body[start:stop]
    return stop - len(value.lstrip(_BLANK)), start + len(value.rstrip(_BLANK))
