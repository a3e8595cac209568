"""Logits processors: penalties of earlier tokens, and biases that a request sets."""

from collections import Counter, abc, deque
from typing import Protocol

import numpy as np

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.top_k import Row


class LogitsProcessor(Protocol):
    """Logits processor (logits_processor): changes the logits of one sequence's next token."""

    def apply(self, row: Row) -> None:
        """Changes `row` in place: [vocab] float32."""

    def accept(self, token: int) -> None:
        """Notes that `token` was chosen."""


class RepeatPenalty:
    """Repetition penalty (repetition_penalty): a factor on the logits of the tokens among the
    last `repeat_last_n`, the prompt's too."""

    def __init__(self, sampling: Sampling, prompt: abc.Sequence[int]) -> None:
        window = sampling.repeat_last_n
        self._factor = np.float32(sampling.repeat_penalty)
        self._recent = deque(prompt if window is None else prompt[-window:], maxlen=window)
        self._counts = Counter(self._recent)

    @staticmethod
    def is_wanted(sampling: Sampling) -> bool:
        """True if the penalty changes anything."""
        return sampling.repeat_penalty != 1 and sampling.repeat_last_n != 0

    def apply(self, row: Row) -> None:
        """Divides logits above zero by the factor and multiplies others, which makes both less
        likely."""
        tokens = np.fromiter(self._counts, dtype=np.intp)
        logits = row[tokens]
        row[tokens] = np.where(logits > 0, logits / self._factor, logits * self._factor)

    def accept(self, token: int) -> None:
        """Notes that `token` was chosen."""
        if len(self._recent) == self._recent.maxlen:
            oldest = self._recent.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._recent.append(token)
        self._counts[token] += 1


class CountPenalty:
    """OpenAI's penalties on generated tokens: presence (once) and frequency (for each
    occurrence)."""

    def __init__(self, sampling: Sampling) -> None:
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._counts: Counter[int] = Counter()

    @staticmethod
    def is_wanted(sampling: Sampling) -> bool:
        """True if the penalties change anything."""
        return sampling.frequency_penalty != 0 or sampling.presence_penalty != 0

    def apply(self, row: Row) -> None:
        """Subtracts the penalty of each token."""
        tokens = np.fromiter(self._counts, dtype=np.intp)
        counts = np.fromiter(self._counts.values(), dtype=np.float32)
        row[tokens] -= self._frequency * counts + self._presence

    def accept(self, token: int) -> None:
        """Notes that `token` was chosen."""
        self._counts[token] += 1


class LogitBias:
    """Logit bias: adds a constant to the logits of some tokens; `forbidden` tokens can never be
    chosen."""

    def __init__(self, biases: abc.Mapping[int, float], forbidden: abc.Iterable[int] = ()) -> None:
        banned = list(forbidden)
        self._tokens = np.array([*biases, *banned], dtype=np.intp)
        self._values = np.array([*biases.values(), *(-np.inf for _ in banned)], dtype=np.float32)

    def apply(self, row: Row) -> None:
        """Adds the constants; a token may have several."""
        np.add.at(row, self._tokens, self._values)

    def accept(self, token: int) -> None:
        """Does nothing: biases do not depend on chosen tokens."""
