"""Hidden states of the texts that a draft head follows."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.sequence import Sequence
from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate

Hidden = NDArray[np.float32]
"""Hidden states: [tokens, hidden size] float32."""


@dataclass(kw_only=True, eq=False)
class HiddenStateBuffer:
    """Hidden states of the tokens of `source`, which has the slot: `hidden[i]` belongs to token
    `hidden_begin + i`. Its first `computed` tokens are in the head's cells. `draft` is the newest
    one, for the tokens from `drafted_at` on."""

    source: Sequence
    first_position: int
    hidden_begin: int
    hidden: Hidden
    computed: int = 0
    rate: AcceptanceRate
    draft: list[int] = field(default_factory=list)
    drafted_at: int = 0

    @property
    def next_token(self) -> int:
        """The first token that the head has not computed."""
        return max(self.computed, self.hidden_begin, self.first_position)

    def truncate(self, length: int) -> None:
        """Keeps the hidden states before `length`."""
        self.hidden = self.hidden[: max(0, length - self.hidden_begin)]
        self.hidden_begin = min(self.hidden_begin, length)

    def hidden_before(self, start: int, end: int) -> Hidden:
        """The hidden state before each token from `start` to `end`."""
        known = self.hidden[max(0, start - 1 - self.hidden_begin) : end - 1 - self.hidden_begin]
        missing = end - start - len(known)
        return np.pad(known, ((missing, 0), (0, 0))) if missing else known

    def forget(self, length: int) -> None:
        """Forgets the hidden states that are not needed once `length` tokens are computed."""
        self.computed = length
        unneeded = max(0, length - 1 - self.hidden_begin)
        self.hidden = self.hidden[unneeded:].copy()
        self.hidden_begin += unneeded
