"""Words of a transcript: tokens joined to whole characters, then to words (pure)."""

import codecs
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llm_backend.engine.messages import TimedWord

_WITHOUT_SPACES = frozenset({"ja", "lo", "my", "th", "yue", "zh"})
"""Languages without spaces between words: each token counts as a word."""

_SCRIPTS_WITHOUT_SPACES = ("CJK ", "HIRAGANA ", "KATAKANA ")
"""Beginnings of the names of their characters: tokens of these count as words in any language."""


@dataclass(frozen=True, kw_only=True)
class TimedToken:
    """Bytes of a token, with its start and end in seconds since the window began."""

    bytes: bytes
    start_s: float
    end_s: float


def begins_word(text: str) -> bool:
    """True if a token of this text begins a word: after a space, or in a script without spaces."""
    first = text[:1]
    return first.isspace() or unicodedata.name(first, "").startswith(_SCRIPTS_WITHOUT_SPACES)


def timed_words(tokens: Sequence[TimedToken], language: str) -> list[TimedWord]:
    """Returns the words of a segment. Punctuation belongs to the word before it."""
    words: list[TimedWord] = []
    for piece in _whole_characters(tokens):
        if not words or language in _WITHOUT_SPACES or begins_word(piece.text):
            words.append(piece)
        else:
            last = words.pop()
            words.append(
                TimedWord(text=last.text + piece.text, start_s=last.start_s, end_s=piece.end_s)
            )
    stripped = [
        TimedWord(text=one.text.strip(), start_s=one.start_s, end_s=max(one.start_s, one.end_s))
        for one in words
    ]
    return [one for one in stripped if one.text]


def _whole_characters(tokens: Sequence[TimedToken]) -> Iterator[TimedWord]:
    """Yields the text and times of each token. Tokens that share a character are joined; invalid
    UTF-8 is replaced."""
    pending, start_s, end_s = b"", 0.0, 0.0
    for token in tokens:
        if pending and not _continues_character(token.bytes):
            yield TimedWord(text=pending.decode(errors="replace"), start_s=start_s, end_s=end_s)
            pending = b""
        start_s = start_s if pending else token.start_s
        pending, end_s = pending + token.bytes, token.end_s
        if not _ends_inside_character(pending):
            yield TimedWord(text=pending.decode(errors="replace"), start_s=start_s, end_s=end_s)
            pending = b""
    if pending:
        yield TimedWord(text=pending.decode(errors="replace"), start_s=start_s, end_s=end_s)


def _continues_character(data: bytes) -> bool:
    return not data or data[0] & 0xC0 == 0x80  # RFC 3629: a continuation byte


def _ends_inside_character(data: bytes) -> bool:
    """True if further bytes may complete the last character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return bool(decoder.getstate()[0])
