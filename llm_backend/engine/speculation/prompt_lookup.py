"""Prompt lookup (n-gram speculation): finds earlier occurrences of a text's end, because the tokens
that followed them may follow again. Pure.

A dictionary has the index after the latest occurrence of each pair of tokens, and a list links each
index to that of the pair's previous occurrence. So a token costs one dictionary entry, and a search
follows a bounded number of links.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import takewhile

_MAX_OCCURRENCES = 32  # that are compared: a frequent pair has thousands
_MAX_COMPARED_TOKENS = 32  # at one occurrence; a longer repetition is no better evidence
_BEGIN = (-2, -1)  # precedes a prediction, and the text that it predicts
_END = -3  # follows a prediction; no repetition extends across it


class PromptLookup:
    """A growing text. A `prediction` of the text after `mark_begin` may precede it."""

    def __init__(self, prediction: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._latest: dict[tuple[int, int], int] = {}
        self._previous: list[int] = [0, 0]  # by index; 0 where a pair is new
        self._prediction_end = 0
        predicted = list(prediction)
        self._has_prediction = bool(predicted)
        if predicted:
            self.extend((*_BEGIN, *predicted, _END))
            self._prediction_end = len(self._tokens)

    def copy(self) -> "PromptLookup":
        """Returns a copy that grows apart from this text."""
        other = copy(self)
        other._tokens = self._tokens.copy()
        other._latest = self._latest.copy()
        other._previous = self._previous.copy()
        return other

    def extend(self, tokens: Iterable[int]) -> None:
        """Appends `tokens` to the text."""
        for token in tokens:
            self.push(token)

    def mark_begin(self) -> None:
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
        self._previous.append(self._latest.get(pair, 0))
        self._latest[pair] = index

    def match(self) -> tuple[int, int] | None:
        """Returns the index after the longest earlier repetition of the text's end, and its length;
        of equally long ones, one in the prediction, else the latest. None if the last two tokens
        did not occur before."""
        best: tuple[int, int] | None = None
        index = self._previous[len(self._tokens)]
        for _ in range(_MAX_OCCURRENCES):
            if not index:
                break
            length = self._repetition_length(index)
            if best is None or self._rank(index, length) > self._rank(*best):
                best = (index, length)
            index = self._previous[index]
        return best

    def token_at(self, index: int) -> int | None:
        """Returns the token at an index; None at the bounds of a prediction."""
        token = self._tokens[index]
        return token if token >= 0 else None

    def is_prediction(self, index: int) -> bool:
        """True if an index is in the prediction."""
        return index < self._prediction_end

    def continuation(self, index: int, count: int) -> list[int]:
        """Returns up to `count` tokens from an index on. At the end of the text they are repeated,
        as if the text were periodic."""
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
            length < min(_MAX_COMPARED_TOKENS, index)
            and tokens[index - 1 - length] == tokens[end - 1 - length]
        ):
            length += 1
        return length


class SharedPromptLookup:
    """Text of a prompt, with a prediction, that several answers continue. It is read once; each of
    the first `answers` - 1 takes a copy, and the last one the text itself."""

    def __init__(self, answers: int = 1) -> None:
        self._untaken = answers
        self._lookup: PromptLookup | None = None
        self._prompt_tokens = 0

    def take(self, prompt: Sequence[int], prediction: Sequence[int]) -> PromptLookup:
        """Returns the text for one more answer. A prompt that a context shift has shortened is read
        for its answer alone."""
        self._untaken -= 1
        if self._lookup is None:
            self._lookup, self._prompt_tokens = _read_prompt(prompt, prediction), len(prompt)
        elif len(prompt) != self._prompt_tokens:
            return _read_prompt(prompt, prediction)
        if self._untaken > 0:
            return self._lookup.copy()
        taken, self._lookup = self._lookup, None
        return taken


def _read_prompt(prompt: Sequence[int], prediction: Sequence[int]) -> PromptLookup:
    lookup = PromptLookup(prediction)
    lookup.extend(prompt)
    lookup.mark_begin()
    return lookup
