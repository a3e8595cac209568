"""How many tokens of prompts that can wait a pass may read. Pure: times are told.

Nothing ends a pass that has begun, so who comes waits for the one in progress. As long as people
come, what batch work adds to a pass is therefore bounded by how fast this model reads on this
machine; at other times it has whole passes, which are a good deal faster.
"""

__all__ = ["PrefillBudget"]

_PATIENCE_S = 0.05  # that batch work may add to what somebody waits for a first token
_PEOPLE_S = 30.0  # after somebody was there that the next one is expected
_LEAST = 32  # tokens: with fewer, reading the weights takes most of a pass
_SHARE = 0.2  # of the newest speed in what is believed


class PrefillBudget:
    """What passes have computed a second, and when people were there."""

    def __init__(self) -> None:
        self._tokens_per_s: float | None = None
        self._somebody_at: float | None = None

    def somebody_is_there(self, now: float) -> None:
        """A request is being answered, or waits, that cannot wait."""
        self._somebody_at = now

    @property
    def tokens_per_s(self) -> float | None:
        """How fast prompts are read, as far as is known."""
        return self._tokens_per_s

    def measured(self, tokens: int, seconds: float) -> None:
        """Learn from a pass; small ones say nothing of how fast prompts are read."""
        if tokens < _LEAST or seconds <= 0:
            return
        known = tokens / seconds if self._tokens_per_s is None else self._tokens_per_s
        self._tokens_per_s = known + _SHARE * (tokens / seconds - known)

    def batch_prefill_tokens(self, now: float) -> int | None:
        """How many tokens of batch work's prompts the next pass may read; None for as many as it
        has room for."""
        if self._somebody_at is None or now - self._somebody_at > _PEOPLE_S:
            return None
        return max(_LEAST, int((self._tokens_per_s or 0.0) * _PATIENCE_S))
