"""Path scorer: reads the logprobs of one path of a label tree."""

from collections.abc import Sequence as Rows

import numpy as np

from llm_backend.engine.messages import Delta
from llm_backend.engine.sampling import NoChoice, Row
from llm_backend.engine.scoring.label_tree import LabelPath, LabelTree, Node
from llm_backend.engine.sequence import Sequence

Logprobs = dict[Node, dict[int, float]]
"""Logprobs of the next tokens of each node."""


class PrefixReader:
    """Has the shared prompt computed, and reads nothing: its slot then ends with the prompt, from
    where a state that cannot be truncated is copied."""

    constraint = None

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.is_finished = False

    def read_prompt(self, row: Row, position: int) -> None:
        """Ignore the logits."""

    def advance_with_draft(self, rows: Rows[Row], draft: Rows[int]) -> tuple[Delta | None, int]:
        """Note that the prompt is computed."""
        self.is_finished = True
        return None, 0


class PathScorer:
    """Adds the logprobs of one path to `logprobs`, from the logits of its sequence, which ends with
    the path."""

    constraint = None

    def __init__(
        self, sequence: Sequence, tree: LabelTree, path: LabelPath, logprobs: Logprobs
    ) -> None:
        self.sequence = sequence
        self.is_finished = False
        self._tree = tree
        self._path = path
        self._logprobs = logprobs

    def read_prompt(self, row: Row, position: int) -> None:
        """Read the logits at a position of the prompt: [vocab] float32."""
        length = position + 1 - (len(self.sequence.tokens) - len(self._path.tokens))
        node = self._path.tokens[:length]
        tokens = self._tree.next_tokens(node)
        self._logprobs[node] = dict(zip(tokens, _log_probabilities(row, tokens), strict=True))

    def advance_with_draft(self, rows: Rows[Row], draft: Rows[int]) -> tuple[Delta | None, int]:
        """Read the logits of the last position, with which the path ends. Raises `NoChoice` if
        logits are not numbers."""
        self.read_prompt(rows[0], len(self.sequence.tokens) - 1)
        self.is_finished = True
        return None, 0


def _log_probabilities(row: Row, tokens: Rows[int]) -> list[float]:
    """Logprobs of `tokens`, from a row of logits: [vocab] float32."""
    peak = float(row.max())
    total = peak + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))
    if not np.isfinite(total):
        raise NoChoice(f"no label has a probability: the best logit is {peak}")
    return [float(row[token]) - total for token in tokens]
