"""Incremental strings of Python: quotes, triple quotes and escape sequences."""

import json
from collections.abc import Callable

from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\n": "",
}  # fmt: skip
_ESCAPE_DIGITS = {"x": 2, "u": 4, "U": 8}
_OCTAL = "01234567"

Write = Callable[[str], None]
"""Writer of a value's JSON."""


def read_python_string(reader: MarkupReader, write: Write, *, is_raw: bool) -> Steps[None]:
    """Reads a string between quotes or triple quotes."""
    quote = yield from reader.advance()
    if reader.current == quote:
        yield from reader.advance()
        if reader.current != quote:
            return  # an empty string
        yield from reader.advance()
        quote *= 3
    reader.commit()
    half = ""  # a high surrogate, until the next character is known
    while True:
        piece = yield from reader.advance()
        if piece == "\\":
            piece = yield from _read_escape_sequence(reader, is_raw=is_raw)
        elif piece == quote[0]:
            while piece != quote and reader.current == quote[0]:
                piece += yield from reader.advance()
            if piece == quote:
                break
            if not reader.current:
                raise NoCall
        text = half + piece
        half = text[-1:] if "\ud800" <= text[-1:] < "\udc00" else ""
        write_text(write, _join_surrogates(text.removesuffix(half)))
        reader.commit()
    write_text(write, _join_surrogates(half))
    reader.commit()


def _read_escape_sequence(reader: MarkupReader, *, is_raw: bool) -> Steps[str]:
    char = yield from reader.advance()
    if is_raw:
        return "\\" + char
    if char in _OCTAL:
        while len(char) < 3 and reader.current and reader.current in _OCTAL:
            char += yield from reader.advance()
        return chr(int(char, 8))
    digits = _ESCAPE_DIGITS.get(char)
    if digits is None:
        return _ESCAPES.get(char, char if char in "\\'\"" else "\\" + char)
    code = ""
    while len(code) < digits:
        code += yield from reader.advance()
    try:
        return chr(int(code, 16))
    except (ValueError, OverflowError) as error:
        raise NoCall from error


def _join_surrogates(text: str) -> str:
    """Returns the text with one character for each pair of surrogates, and a replacement character
    for each other surrogate."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def write_text(write: Write, text: str) -> None:
    """Writes text within a JSON string."""
    write(json.dumps(text, ensure_ascii=False)[1:-1])
