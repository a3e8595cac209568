"""Tokens of recent chats as the model generated them, for prompts that begin with the same text.

A chat's next prompt holds the last answer as text. A tokenizer may split it into other tokens than
the model generated, and the cached prefix would end at the first of them. So a prompt that begins
with the text of a remembered chat gets that chat's own tokens. Pure: no clock, no model.
"""

import threading
from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, abc
from dataclasses import dataclass

from llm_backend.engine.kv_cache.cache import common_prefix_length
from llm_backend.engine.model import Vocabulary

_TOKEN = "i"  # noqa: S105 # array type of a token
_ENTRY_BYTES = 400  # about what the objects of a chat take besides their content
_COMPARED = 64  # tokens that are compared at once
_MARKUP = b"\xff"  # before the number of a token without text; no byte of a text in UTF-8


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """Tokens of a text, their text as a key, and for each of them whether a model generated it."""

    key: bytes
    tokens: "array[int]"
    is_generated: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return len(self.key) + len(self.tokens) * (self.tokens.itemsize + 1) + _ENTRY_BYTES


class GeneratedTokens:
    """Chats of at most `limit_bytes`, the least recently used of which are removed. Their keys are
    their texts, in sorted order. Any thread may use it."""

    def __init__(self, vocabulary: Vocabulary, limit_bytes: int) -> None:
        self._vocabulary = vocabulary
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._texts: list[bytes | None] = [None] * vocabulary.size  # by token
        self._keys: list[bytes] = []
        self._chats: OrderedDict[bytes, Spelling] = OrderedDict()  # least recently used first
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, prompt: Spelling, answer: abc.Sequence[int]) -> None:
        """Remember a chat without media, whose `answer` was generated, in the place of the chats
        that it continues. The cost grows with the answer; the prompt is only copied."""
        if not prompt.tokens or not answer:
            return
        chat = Spelling(
            key=prompt.key + self._key(answer),
            tokens=prompt.tokens + array(_TOKEN, answer),
            is_generated=prompt.is_generated + b"\1" * len(answer),
        )
        if chat.size > self._limit_bytes:
            return
        with self._lock:
            self._remove_continued(chat.key)
            insort(self._keys, chat.key)
            self._chats[chat.key] = chat
            self.bytes += chat.size
            while self.bytes > self._limit_bytes:
                self._remove(next(iter(self._chats)))

    def spell(self, tokens: abc.Sequence[int]) -> Spelling:
        """Returns these tokens, none of them generated."""
        return Spelling(
            key=self._key(tokens), tokens=array(_TOKEN, tokens), is_generated=bytes(len(tokens))
        )

    def substitute(self, tokens: abc.Sequence[int]) -> Spelling:
        """Returns tokens with exactly the same text that share the longest possible beginning with
        a remembered chat. Only tokens that were generated replace others; markup is never
        replaced."""
        own = self.spell(tokens)
        with self._lock:
            nearest = self._nearest(own.key)
            if nearest is None:
                return own
            known = self._chats[nearest]
        length, replaced = self._common_text(known, own.tokens)  # without the lock: it may be long
        is_generated = known.is_generated[:length]
        if any(is_generated):
            with self._lock:
                if nearest in self._chats:
                    self._chats.move_to_end(nearest)
        return Spelling(
            key=own.key,
            tokens=known.tokens[:length] + own.tokens[replaced:],
            is_generated=is_generated + bytes(len(own.tokens) - replaced),
        )

    def _common_text(self, known: Spelling, theirs: "array[int]") -> tuple[int, int]:
        """Number of tokens of both that have the same text, as far as tokens may be replaced."""
        first, second = 0, 0
        end: tuple[int, int] | None = (0, 0)
        while end is not None:
            first, second = end
            same = _equal_length(known.tokens, first, theirs, second)
            first, second = first + same, second + same
            end = self._end_of_difference(known, first, theirs, second)
        return first, second

    def _end_of_difference(
        self, known: Spelling, first: int, theirs: "array[int]", second: int
    ) -> tuple[int, int] | None:
        """The next positions in both at which their texts are equal again, if a token between was
        generated; else None."""
        start, rest, other_rest = first, b"", b""
        while True:
            if not rest and first < len(known.tokens):
                piece = rest = self._text(known.tokens[first])
                first += 1
            elif not other_rest and second < len(theirs):
                piece = other_rest = self._text(theirs[second])
                second += 1
            else:
                return None
            same = min(len(rest), len(other_rest))
            if not piece or rest[:same] != other_rest[:same]:
                return None
            rest, other_rest = rest[same:], other_rest[same:]
            if same and not rest and not other_rest:
                return (first, second) if any(known.is_generated[start:first]) else None

    def _nearest(self, key: bytes) -> bytes | None:
        """The key of a chat that has the longest beginning in common with this one."""
        index = bisect_left(self._keys, key)
        beside = self._keys[max(0, index - 1) : index + 1]
        return max(beside, key=lambda one: common_prefix_length(one, key), default=None)

    def _remove_continued(self, key: bytes) -> None:
        """Removes the chat with this key, and those that it continues."""
        if key in self._chats:
            self._remove(key)
        index = bisect_left(self._keys, key)
        while index and key.startswith(self._keys[index - 1]):
            index -= 1
            self._remove(self._keys[index])

    def _remove(self, key: bytes) -> None:
        self.bytes -= self._chats.pop(key).size
        del self._keys[bisect_left(self._keys, key)]

    def _key(self, tokens: abc.Sequence[int]) -> bytes:
        """The text of tokens, with the numbers of those that have none."""
        return b"".join(self._text(token) or _MARKUP + token.to_bytes(4, "big") for token in tokens)

    def _text(self, token: int) -> bytes:
        """The text of a token; empty for markup."""
        text = self._texts[token]
        if text is None:
            is_marker = self._vocabulary.is_marker(token)
            text = self._texts[token] = b"" if is_marker else self._vocabulary.piece(token)
        return text


def _equal_length(known: "array[int]", first: int, theirs: "array[int]", second: int) -> int:
    """Number of equal tokens from these positions on; copies few tokens beyond the equal ones."""
    length, same = 0, _COMPARED
    while same == _COMPARED:
        at, other = first + length, second + length
        same = common_prefix_length(known[at : at + _COMPARED], theirs[other : other + _COMPARED])
        length += same
    return length
