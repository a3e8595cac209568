"""JSON bodies as text and back, without loss.

This is the standard library's encoder: it escapes lone surrogates and keeps integers of any size.
Faster encoders refuse the first and turn the second into floats. Not-a-number is refused: it is not
JSON, and PostgreSQL would not take it.
"""

import json
from json.encoder import (  # type: ignore[attr-defined]  # not in the stubs
    c_make_encoder,
    encode_basestring_ascii,
)

from llm_backend.exact_json import encode_in_pieces
from llm_backend.store.errors import Unstorable

_STRETCH = 1024 * 1024  # characters encoded per call: other threads can run between two calls


class EncodedJson(str):
    """JSON that is encoded already. It is ASCII, so its length is its size in bytes."""

    __slots__ = ()


def encode(value: object) -> EncodedJson:
    """JSON text for a column whose size is counted. Raises `Unstorable` if the value is not
    JSON."""
    try:
        return EncodedJson(_encode(value))
    except (ValueError, TypeError) as error:
        raise Unstorable(f"The database cannot hold this value: {error}") from error


def dumps(value: object) -> str:
    """JSON text in ASCII. Raises `ValueError` or `TypeError` if the value is not JSON."""
    return str(value) if isinstance(value, EncodedJson) else _encode(value)


def loads(text: str) -> object:
    """The value of a JSON text, inverse of `dumps`."""
    return json.loads(text)


def _encode(value: object) -> str:
    return encode_in_pieces(value, _encode_at_once)


def _encode_at_once(value: object) -> str:
    return "".join(_pieces_of(value, 0))


def _encode_text(text: str) -> str:
    if len(text) <= _STRETCH:
        return encode_basestring_ascii(text)
    stretches = (text[start : start + _STRETCH] for start in range(0, len(text), _STRETCH))
    return f'"{"".join(encode_basestring_ascii(one)[1:-1] for one in stretches)}"'


# One encoder for all values: making an encoder takes longer than encoding a short value. The first
# None turns the search for cycles off: JSON values have none.
_pieces_of = c_make_encoder(
    None, json.JSONEncoder().default, _encode_text, None, ":", ",", False, False, False
)
