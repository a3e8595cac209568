"""Prompt lookup (n-gram speculation): finds earlier repetitions of a text's end; the tokens that
followed there may follow again. Pure.

For every pair of neighbouring tokens, the index after it and that of the pair's previous occurrence
are stored. So a token costs one dictionary entry, and the longest of the recent repetitions is
found by walking that chain a bounded number of steps.
"""

from collections.abc import Iterable
from itertools import takewhile

_STEPS = 32  # earlier indices that are compared: a frequent pair has thousands
_LONGEST = 32  # tokens compared at an index; a longer repetition is not better evidence
_BEGIN = (-2, -1)  # before a prediction, and before the text that it predicts
_END = -3  # repetitions do not extend across it


class PromptLookup:
    """A growing text, optionally preceded by a prediction of the text after `begin`."""

    def __init__(self, prediction: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._latest: dict[tuple[int, int], int] = {}
        self._earlier: list[int] = [0, 0]  # by index; 0 where a pair is new
        self._prediction_end = 0
        predicted = list(prediction)
        self._has_prediction = bool(predicted)
        if predicted:
            self.extend((*_BEGIN, *predicted, _END))
            self._prediction_end = len(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Appends `tokens` to the text."""
        for token in tokens:
            self.push(token)

    def begin(self) -> None:
        """Marks the beginning of the text that the prediction is about, if there is one."""
        if self._has_prediction:
            self.extend(_BEGIN)

    def push(self, token: int) -> None:
        """Appends `token` to the text."""
        self._tokens.append(token)
        index = len(self._tokens)
        if index < 2:
            return
        pair = (self._tokens[-2], token)
        self._earlier.append(self._latest.get(pair, 0))
        self._latest[pair] = index

    def match(self) -> tuple[int, int] | None:
        """The index after the longest earlier repetition of the text's end, and its length; of
        several equally long ones, one in the prediction, else the latest. None if not even the
        last two tokens occurred before."""
        best: tuple[int, int] | None = None
        index = self._earlier[len(self._tokens)]
        for _ in range(_STEPS):
            if not index:
                break
            length = self._repetition_length(index)
            if best is None or self._rank(index, length) > self._rank(*best):
                best = (index, length)
            index = self._earlier[index]
        return best

    def token_at(self, index: int) -> int | None:
        """The token at an index; None at a boundary, across which no repetition extends."""
        token = self._tokens[index]
        return token if token >= 0 else None

    def is_prediction(self, index: int) -> bool:
        """True if an index is in the prediction."""
        return index < self._prediction_end

    def continuation(self, index: int, count: int) -> list[int]:
        """Up to `count` tokens that followed at an index. If they reach the end of the text, the
        text is taken as periodic and they are repeated."""
        ahead = len(self._tokens) - index
        found = self._tokens[index : index + min(count, ahead)]
        found = list(takewhile(lambda token: token >= 0, found))
        if len(found) == ahead:
            found += [found[number % ahead] for number in range(ahead, count)]
        return found

    def _rank(self, index: int, length: int) -> tuple[int, bool]:
        return length, self.is_prediction(index)

    def _repetition_length(self, index: int) -> int:
        tokens, end = self._tokens, len(self._tokens)
        length = 2
        while (
            length < min(_LONGEST, index) and tokens[index - 1 - length] == tokens[end - 1 - length]
        ):
            length += 1
        return length
