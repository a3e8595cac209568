"""Words of texts for the search of chats, and excerpts around found words.

Words are compared in lower case and without accents. Chinese and Japanese have no spaces: each
pair of neighbouring characters is a word there, as is the last character of a run. A query's word
matches words that begin with it, which suits Korean and Thai, too. `search/keywords.py` compares
whole words, so it also splits Korean and Thai.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from llm_backend.word_signs import WORD_SIGNS, fold_sign

MAX_WORD_CHARACTERS = 64  # PostgreSQL's limit is 2046 bytes
# Of a chat: a `tsvector` addresses less than 1 MiB, and one of a longer array is silently wrong.
MAX_WORDS_BYTES = 1_000_000
MAX_QUERY_WORDS = 16  # further ones are ignored

_WORD = re.compile(rf"(?:[^\W_]|[{WORD_SIGNS}])+")
_UNSPACED = re.compile("([\u3005\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)")
_VOICING = re.compile("[\u3099\u309a]")
_LEAD_CHARACTERS, _EXCERPT_CHARACTERS = 40, 160  # before the first found word, and in all


@dataclass(frozen=True, kw_only=True)
class ExcerptPart:
    """A piece of an excerpt; `is_match` if it matches the query."""

    text: str
    is_match: bool


def words_of(texts: Iterable[str], limit: int) -> list[str]:
    """Returns the distinct words of the first `limit` characters of all texts together, up to
    `MAX_WORDS_BYTES` of words."""
    found: dict[str, None] = {}
    for text in texts:
        found.update(dict.fromkeys(_all_parts(text[:limit])))
        limit -= len(text)
        if limit <= 0:
            break
    sizes = accumulate(len(word.encode()) for word in found)
    return [word for word, size in zip(found, sizes, strict=True) if size <= MAX_WORDS_BYTES]


def sought_words(query: str) -> list[str]:
    """Returns the words of a query; each is a prefix of a word in the chats that match."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(query):
        for folded, is_unspaced in _runs(match[0]):
            has_pairs = is_unspaced and len(folded) > 1
            words = _pairs(folded)[:-1] if has_pairs else [folded[:MAX_WORD_CHARACTERS]]
            found.update(dict.fromkeys(words))
    return list(found)[:MAX_QUERY_WORDS]


def excerpt(texts: Sequence[str], query: str) -> list[ExcerptPart]:
    """Returns an excerpt of the first text that has a word of the query, in parts; if none has one,
    the start of the first text."""
    sought = [run for match in _WORD.finditer(query) for run in _runs(match[0])]
    for text in texts:
        spans = _spans(text, sought)
        first = next(spans, None)
        if first is not None:
            return _excerpt(text, [first, *_until(spans, first[0] + _EXCERPT_CHARACTERS)])
    return _excerpt(texts[0], []) if texts else []


def _all_parts(text: str) -> Iterable[str]:
    if text.isascii():  # most are; the whole text is folded in one step
        return [word[:MAX_WORD_CHARACTERS] for word in _WORD.findall(text.lower())]
    return (part for match in _WORD.finditer(text) for part in _parts(match[0]))


def _parts(word: str) -> Iterator[str]:
    for folded, is_unspaced in _runs(word):
        if is_unspaced:
            yield from _pairs(folded)
        else:
            yield folded[:MAX_WORD_CHARACTERS]


def _pairs(folded: str) -> list[str]:
    return [folded[index : index + 2] for index in range(len(folded))]


def _runs(word: str) -> Iterator[tuple[str, bool]]:
    """Yields the runs of a word, folded, each with True if its characters are Chinese or
    Japanese."""
    if word.isascii():
        yield word.lower(), False
        return
    for index, run in enumerate(_UNSPACED.split(word)):
        folded = _fold(run)
        if folded:
            yield folded, index % 2 == 1


def _fold(word: str) -> str:
    whole = unicodedata.normalize("NFKD", word.casefold())
    # Compatibility forms may contain brackets and slashes, which are not part of a word.
    folded = "".join(one if one.isalnum() else fold_sign(one, "") for one in whole)
    # Kana and their voicing marks are pairs of one character each; Korean stays in letters.
    return unicodedata.normalize("NFC", folded) if _VOICING.search(folded) else folded


def _spans(text: str, sought: Sequence[tuple[str, bool]]) -> Iterator[tuple[int, int]]:
    for match in _WORD.finditer(text):
        start = match.start()
        for run in _UNSPACED.split(match[0]):
            folded = _fold(run)
            for one, is_unspaced in sought:
                at = folded.find(one) if is_unspaced else 0 if folded.startswith(one) else -1
                if at >= 0:
                    # a word is marked as a whole, because folding may change its length
                    first, length = (start + at, len(one)) if is_unspaced else (start, len(run))
                    yield first, first + length
                    break
            start += len(run)


def _until(spans: Iterator[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    for span in spans:
        if span[0] >= end:
            return
        yield span


def _excerpt(text: str, spans: Sequence[tuple[int, int]]) -> list[ExcerptPart]:
    start = max(0, spans[0][0] - _LEAD_CHARACTERS) if spans else 0
    if start:  # at the beginning of a word
        start = text.find(" ", start, spans[0][0]) + 1 or start
    end = min(len(text), start + _EXCERPT_CHARACTERS)
    parts, at = [("…" if start else "", False)], start
    for first, last in spans:
        if first >= end:
            break
        parts += [(text[at:first], False), (text[first : min(last, end)], True)]
        at = min(last, end)
    parts.append((text[at:end] + ("…" if end < len(text) else ""), False))
    return [ExcerptPart(text=text, is_match=is_match) for text, is_match in parts if text]
