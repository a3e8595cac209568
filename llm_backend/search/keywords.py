"""Sparse vectors of the words in texts, for BM25 (pure).

A word is a run of letters, digits and vowel signs, without case and accents. Chinese, Japanese and
Thai are written without spaces, and Korean joins particles to its words, so there each pair of
neighbours is a word. The index adds how rare a word is; its frequency in a text, and the length of
the text, are computed here. Words are compared whole; `store/chats/words.py` finds words by their
beginnings, and splits fewer scripts.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from llm_backend.search.base import SparseVector
from llm_backend.word_signs import fold_sign

SATURATION, LENGTH_WEIGHT = 1.2, 0.75  # BM25's k and b, with the common values
TYPICAL_WORDS = 256  # words of a typical chunk

_ASCII_RUN = re.compile(r"[a-z0-9]+")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def text_keywords(text: str) -> SparseVector:
    """Returns the weighted words of a stored text."""
    counts = Counter(_words(text))
    length_ratio = sum(counts.values()) / TYPICAL_WORDS
    length_norm = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * length_ratio)
    weights = {
        _hash_word(word): count * (SATURATION + 1) / (count + length_norm)
        for word, count in counts.items()
    }
    return _sparse(weights)


def query_keywords(text: str) -> SparseVector:
    """Returns the words of a query, all with the same weight."""
    return _sparse({_hash_word(word): 1.0 for word in _words(text)})


def _words(text: str) -> Iterator[str]:
    if text.isascii():
        yield from _ASCII_RUN.findall(text.lower())
        return
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(one if one.isalnum() else fold_sign(one, " ") for one in folded)
    for run in unicodedata.normalize("NFC", plain).split():
        begin = 0
        for match in _UNSPACED.finditer(run):
            if run[begin : match.start()]:
                yield run[begin : match.start()]
            yield from _pairs(match.group())
            begin = match.end()
        if run[begin:]:
            yield run[begin:]


def _pairs(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for start in range(len(run) - 1):
        yield run[start : start + 2]


def _hash_word(word: str) -> int:
    """Hashes a word to 32 bits; collisions within a store are rare and harmless."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")


def _sparse(weights: dict[int, float]) -> SparseVector:
    indices = sorted(weights)
    return SparseVector(indices=indices, values=[weights[index] for index in indices])
