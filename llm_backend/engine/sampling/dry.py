"""DRY penalty (don't repeat yourself): the longer a repetition would become, the less likely the
token that continues it.

A token that earlier followed the sequence's current end costs `multiplier * base ** (length -
allowed_length)`, where `length` is the number of equal tokens before it. Repetitions do not extend
over a token in which a sequence breaker ends; breakers are searched in the text, regardless of
token boundaries.

One array has the `length` at every earlier position. A chosen token adds one at the positions where
the same token followed, and makes the others zero: one vector operation, without a search.
"""

import math
from bisect import bisect_left
from collections import abc
from itertools import accumulate

import numpy as np

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.top_k import Row

_SPARE_TOKENS = 256  # initial capacity beyond the prompt
_MAX_LOG_FACTOR = 88.0  # natural logarithm of `base ** power`: larger factors overflow float32
_MAX_PENALTY = 1e30  # a logit minus it is still finite


class DryPenalty:
    """The repetitions of one sequence. `token_bytes` returns the bytes of a token as text."""

    def __init__(
        self, sampling: Sampling, prompt: abc.Sequence[int], token_bytes: abc.Callable[[int], bytes]
    ) -> None:
        self._multiplier, self._base = sampling.dry_multiplier, sampling.dry_base
        self._allowed = sampling.dry_allowed_length
        self._window = sampling.dry_penalty_last_n
        log_base = math.log(self._base)
        self._max_power = _MAX_LOG_FACTOR / log_base if log_base > 1e-6 else math.inf
        tokens = list(prompt if self._window is None else prompt[-self._window :])
        self._count = len(tokens)
        self._tokens = np.zeros(self._count + _SPARE_TOKENS, dtype=np.intp)
        self._tokens[: self._count] = tokens
        # length of the repetition before each position
        self._lengths = np.zeros(self._count + _SPARE_TOKENS, dtype=np.intp)
        self._lengths[: self._count] = _repetitions(tokens)
        self._breakers = _Breakers(sampling.dry_sequence_breakers, token_bytes)
        self._after_breaker = self._breakers.begin(tokens)  # the position after the last breaker

    @staticmethod
    def is_wanted(sampling: Sampling) -> bool:
        """True if the penalty changes anything."""
        return sampling.dry_multiplier != 0 and sampling.dry_penalty_last_n != 0

    def apply(self, row: Row) -> None:
        """Subtracts from each token the penalty of the longest repetition that it continues.
        `row`: [vocab] float32."""
        start = self._start
        longest = self._count - max(start, self._after_breaker)
        if longest < self._allowed or self._count - start <= self._allowed:
            return
        oldest = start + 1  # the window must contain the token before a position
        indices = oldest + np.flatnonzero(self._lengths[oldest : self._count] >= self._allowed)
        lengths = np.minimum(self._lengths[indices], np.minimum(indices - start, longest))
        is_long = lengths >= self._allowed
        indices, lengths = indices[is_long], lengths[is_long]
        tokens, groups = np.unique(self._tokens[indices], return_inverse=True)
        max_lengths = np.zeros(len(tokens), dtype=np.intp)
        np.maximum.at(max_lengths, groups, lengths)
        is_penalized = [not self._breakers.occurs_in(int(token)) for token in tokens]
        penalties = self._penalties(max_lengths[is_penalized])
        row[tokens[is_penalized]] -= penalties.astype(np.float32)

    def accept(self, token: int) -> None:
        """Appends a chosen `token`."""
        if self._count + 1 >= len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.zeros_like(self._tokens)))
            self._lengths = np.concatenate((self._lengths, np.zeros_like(self._lengths)))
        start, count = self._start, self._count
        continues = self._tokens[start:count] == token
        self._lengths[start + 1 : count + 1] = (self._lengths[start:count] + 1) * continues
        self._tokens[count] = token
        self._count += 1
        if self._breakers.append(token):
            self._after_breaker = self._count

    @property
    def _start(self) -> int:
        return 0 if self._window is None else max(0, self._count - self._window)

    def _penalties(self, lengths: np.ndarray) -> np.ndarray:
        powers = np.minimum(lengths - self._allowed, self._max_power)
        penalties: np.ndarray = np.minimum(self._multiplier * self._base**powers, _MAX_PENALTY)
        return penalties


class _Breakers:
    """Sequence breakers: strings that end a repetition, searched for in the text as it grows."""

    def __init__(
        self, breakers: abc.Sequence[str], token_bytes: abc.Callable[[int], bytes]
    ) -> None:
        self._breakers = [breaker.encode() for breaker in breakers]
        self._token_bytes = token_bytes
        self._tail = b""  # the text's end, one byte too short for the longest breaker
        self._tail_bytes = max(map(len, self._breakers), default=1) - 1

    def begin(self, tokens: list[int]) -> int:
        """Begins the text with `tokens`. Returns the number of tokens up to the last one in which
        a breaker ends, 0 if there is none."""
        pieces = [self._token_bytes(token) for token in tokens]
        text = b"".join(pieces)
        self._tail = text[max(0, len(text) - self._tail_bytes) :]
        starts = [(text.rfind(breaker), len(breaker)) for breaker in self._breakers]
        end = max((start + length for start, length in starts if start >= 0), default=0)
        return bisect_left(list(accumulate(map(len, pieces))), end) + 1 if end else 0

    def append(self, token: int) -> bool:
        """Appends `token`; returns True if a breaker ends in it."""
        token_bytes = self._token_bytes(token)
        text = self._tail + token_bytes
        found = bool(token_bytes) and any(
            breaker in text[max(0, len(text) - len(token_bytes) - len(breaker) + 1) :]
            for breaker in self._breakers
        )
        self._tail = text[max(0, len(text) - self._tail_bytes) :]
        return found

    def occurs_in(self, token: int) -> bool:
        """True if `token` alone contains a breaker."""
        token_bytes = self._token_bytes(token)
        return any(breaker in token_bytes for breaker in self._breakers)


def _repetitions(tokens: list[int]) -> list[int]:
    """Returns for each position the length of the common suffix of the tokens before it and of all
    tokens: the Z-function of the reversed list, in linear time."""
    backward = tokens[::-1]
    count = len(tokens)
    same = [0] * count
    left = right = 0  # bounds of the match found so far that extends furthest
    for index in range(1, count):
        length = min(right - index, same[index - left]) if index < right else 0
        while index + length < count and backward[length] == backward[index + length]:
            length += 1
        same[index] = length
        if index + length > right:
            left, right = index, index + length
    return [0, *same[:0:-1]] if count else []
