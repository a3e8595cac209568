"""Prefill budget: the number of batch prompt tokens that a pass may compute. Pure: times are
arguments.

A running pass is not interrupted, so a new request waits for the pass in progress. While
interactive requests arrive, the time that batch prefill adds to a pass is therefore bounded, by the
measured prefill speed of this model on this machine. At other times batch requests get whole
passes, which are a good deal faster.
"""

# that batch prefill may add to the time to first token of an interactive request
_ADDED_LATENCY_S = 0.05
_INTERACTIVE_S = 30.0  # after an interactive request, in which the next one is expected
_MINIMUM_TOKENS = 32  # tokens: with fewer, reading the weights takes most of a pass
_SHARE = 0.2  # of the newest speed in the moving average


class PrefillBudget:
    """Measured prefill speed, and the time of the last interactive request."""

    def __init__(self) -> None:
        self._tokens_per_s: float | None = None
        self._interactive_at: float | None = None

    def record_interactive(self, now: float) -> None:
        """Note that an interactive request is running or waiting."""
        self._interactive_at = now

    @property
    def tokens_per_s(self) -> float | None:
        """Prefill speed in tokens per second; None if it is not measured yet."""
        return self._tokens_per_s

    def record_pass(self, tokens: int, seconds: float) -> None:
        """Update the speed by a pass; small passes are ignored, as they do not show the prefill
        speed."""
        if tokens < _MINIMUM_TOKENS or seconds <= 0:
            return
        known = tokens / seconds if self._tokens_per_s is None else self._tokens_per_s
        self._tokens_per_s = known + _SHARE * (tokens / seconds - known)

    def batch_prefill_tokens(self, now: float) -> int | None:
        """Limit of batch prompt tokens in the next pass; None if only the size of the pass
        limits them."""
        if self._interactive_at is None or now - self._interactive_at > _INTERACTIVE_S:
            return None
        return max(_MINIMUM_TOKENS, int((self._tokens_per_s or 0.0) * _ADDED_LATENCY_S))
