"""JSON bodies as text and back, without loss; and what plain text columns can hold.

The standard library's, because it escapes lone surrogates and keeps integers of any size; faster
ones refuse the first and turn the second into floats. Not-a-number is refused: it is not JSON, and
one of the two databases would not take it.
"""

import json
import re

from llm_backend.store.errors import Unstorable

__all__ = ["Encoded", "dumps", "encoded", "is_text", "loads"]

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


class Encoded(str):
    """A value as text already: ASCII, so that its length is its size in bytes."""

    __slots__ = ()


def encoded(value: object) -> Encoded:
    """For a JSON column, where the size matters, too. Raises `Unstorable` for no JSON value."""
    try:
        return Encoded(_ENCODER.encode(value))
    except (ValueError, TypeError) as error:
        raise Unstorable(f"The database cannot hold this value: {error}") from error


def dumps(value: object) -> str:
    """ASCII text; ValueError for what JSON cannot say."""
    return str(value) if isinstance(value, Encoded) else _ENCODER.encode(value)


def loads(text: str) -> object:
    """The value that `dumps` was given."""
    return json.loads(text)


def is_text(text: str) -> bool:
    """Whether a text column can hold this: no NUL character, no half of a surrogate pair."""
    return not _UNSTORABLE.search(text)
