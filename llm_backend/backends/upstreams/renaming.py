"""A request body that calls its model by another name, every other byte as it was (pure)."""

import re

import orjson

__all__ = ["renamed"]

# A string, or one of the marks that nest, begin and end values: what lies between is never looked
# at. JSON escapes a quote inside a string.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)


def renamed(body: bytes, model: str) -> bytes:
    """The JSON object `body` with this value for every `model` at its top level."""
    name, pieces, end = orjson.dumps(model), [], 0
    for start, stop in _values_of_model(body):
        pieces += [body[end:start], name]
        end = stop
    return b"".join([*pieces, body[end:]])


def _values_of_model(body: bytes) -> list[tuple[int, int]]:
    """Where the strings stand that are values of the key `model` in the outermost object."""
    found, depth = [], 0
    key: bytes | None = None
    is_value = False
    for token in _TOKEN.finditer(body):
        mark = token[0]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        elif depth == 1 and mark == b":":
            is_value = True
        elif depth == 1 and mark == b",":
            key, is_value = None, False
        elif depth == 1 and not is_value:
            key = mark
        elif depth == 1 and key is not None and orjson.loads(key) == "model":
            found.append(token.span())
    return found
