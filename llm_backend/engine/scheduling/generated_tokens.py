"""Tokens of recent chats as the model generated them, for prompts that begin with the same text.

A chat's next prompt contains the last answer as text. A tokenizer may split it into other tokens
than the model generated, and the cached prefix would end at the first difference. So a prompt that
begins with the text of a remembered chat gets that chat's tokens. Pure: no clock, no model.
"""

import threading
from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, abc
from dataclasses import dataclass

from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.model import Vocabulary

_TOKEN_TYPE = "i"  # noqa: S105 # of an array of tokens
_ENTRY_BYTES = 400  # estimate of the objects of a chat, besides their contents
_SLICE_TOKENS = 64  # that are compared together
_MARKUP = b"\xff"  # precedes the number of a token without text; UTF-8 never has this byte


@dataclass(frozen=True, kw_only=True)
class Tokenization:
    """Tokens of a text, the key that their text is, and for each token 1 if the model generated it,
    else 0."""

    key: bytes
    tokens: "array[int]"
    is_generated: bytes

    @property
    def size(self) -> int:
        """Estimated bytes in memory."""
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
        self._chats: OrderedDict[bytes, Tokenization] = OrderedDict()  # least recently used first
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, prompt: Tokenization, answer: abc.Sequence[int]) -> None:
        """Stores a chat without media, whose `answer` the model generated, and removes the chats
        that it continues. This takes time for each token of the answer, and copies the prompt."""
        if not prompt.tokens or not answer:
            return
        chat = Tokenization(
            key=prompt.key + self._key(answer),
            tokens=prompt.tokens + array(_TOKEN_TYPE, answer),
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

    def tokenization_of(self, tokens: abc.Sequence[int]) -> Tokenization:
        """Returns these tokens, none of them generated."""
        return Tokenization(
            key=self._key(tokens),
            tokens=array(_TOKEN_TYPE, tokens),
            is_generated=bytes(len(tokens)),
        )

    def substitute(self, tokens: abc.Sequence[int]) -> Tokenization:
        """Returns tokens with exactly the same text that share the longest possible beginning with
        a remembered chat. Only tokens that were generated replace others; markup is never
        replaced."""
        own = self.tokenization_of(tokens)
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
        return Tokenization(
            key=own.key,
            tokens=known.tokens[:length] + own.tokens[replaced:],
            is_generated=is_generated + bytes(len(own.tokens) - replaced),
        )

    def _common_text(self, known: Tokenization, theirs: "array[int]") -> tuple[int, int]:
        """Returns how many tokens of each have the same text, up to the first difference that may
        not be replaced."""
        first, second = 0, 0
        end: tuple[int, int] | None = (0, 0)
        while end is not None:
            first, second = end
            same = _equal_length(known.tokens, first, theirs, second)
            first, second = first + same, second + same
            end = self._end_of_difference(known, first, theirs, second)
        return first, second

    def _end_of_difference(
        self, known: Tokenization, first: int, theirs: "array[int]", second: int
    ) -> tuple[int, int] | None:
        """Returns the next positions in both after which their texts are equal again. None if there
        are none, or if no known token before them was generated."""
        start, pending, other_pending = first, b"", b""
        while True:
            if not pending and first < len(known.tokens):
                piece = pending = self._text(known.tokens[first])
                first += 1
            elif not other_pending and second < len(theirs):
                piece = other_pending = self._text(theirs[second])
                second += 1
            else:
                return None
            same = min(len(pending), len(other_pending))
            if not piece or pending[:same] != other_pending[:same]:
                return None
            pending, other_pending = pending[same:], other_pending[same:]
            if same and not pending and not other_pending:
                return (first, second) if any(known.is_generated[start:first]) else None

    def _nearest(self, key: bytes) -> bytes | None:
        """Returns the key of the chat that has the longest beginning in common with `key`."""
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
        """Returns the text of tokens, with the numbers of tokens that have none."""
        return b"".join(self._text(token) or _MARKUP + token.to_bytes(4, "big") for token in tokens)

    def _text(self, token: int) -> bytes:
        """Returns the text of a token; empty for markup."""
        text = self._texts[token]
        if text is None:
            is_marker = self._vocabulary.is_marker(token)
            text = self._texts[token] = b"" if is_marker else self._vocabulary.piece(token)
        return text


def _equal_length(known: "array[int]", first: int, theirs: "array[int]", second: int) -> int:
    """Returns the number of equal tokens from these positions on. Compares a few tokens at a time,
    because slices are copies."""
    length, same = 0, _SLICE_TOKENS
    while same == _SLICE_TOKENS:
        at, other = first + length, second + length
        same = common_prefix_length(
            known[at : at + _SLICE_TOKENS], theirs[other : other + _SLICE_TOKENS]
        )
        length += same
    return length
