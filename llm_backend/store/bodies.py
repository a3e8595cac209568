"""JSON bodies as text and back, without loss; and what plain text columns can hold.

The standard library's, because it escapes lone surrogates and keeps integers of any size; faster
ones refuse the first and turn the second into floats. Not-a-number is refused: it is not JSON, and
one of the two databases would not take it.
"""

import json
import re

__all__ = ["dumps", "is_text", "loads"]

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def dumps(value: object) -> str:
    """ASCII text; ValueError for what JSON cannot say."""
    return _ENCODER.encode(value)


def loads(text: str) -> object:
    """The value that `dumps` was given."""
    return json.loads(text)


def is_text(text: str) -> bool:
    """Whether a text column can hold this: no NUL character, no half of a surrogate pair."""
    return not _UNSTORABLE.search(text)
