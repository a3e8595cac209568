"""Prefill budget: the number of prompt tokens that a pass may compute. Pure: times are arguments.

A running pass is not interrupted, so a new request waits for the pass in progress. While
interactive requests arrive, the time that batch prefill adds to a pass is therefore bounded, by the
measured prefill speed of this model on this machine. At other times batch requests get whole
passes, which are a good deal faster.

Beside interactive decoding sequences, a long prompt may slow at most 5 % of the passes by more than
half. Where 64 prompt tokens take at most half of the time of a decoding pass (GPUs), each pass
computes a chunk of the prompt. Elsewhere (CPUs) one of 25 passes computes one. The chunk takes as
long as the other 24 passes together, so that the long prompt has half of the time; but it has at
most as many tokens as a pass holds.
"""

from dataclasses import dataclass

from llm_backend.engine.moving_average import moving_average

# Time that batch prefill may add to the time to first token of an interactive request
_ADDED_LATENCY_S = 0.05
_INTERACTIVE_S = 30.0  # seconds after an interactive request in which another one is expected
_MINIMUM_TOKENS = 32  # tokens: with fewer, reading the weights takes most of a pass
_ADDED_TO_DECODING = 0.5  # share of a decoding pass's time that a long prompt may add to each
_MINIMUM_CHUNK = 64  # tokens of one sequence: with fewer, llama.cpp computes no attention in tiles
_PASSES_BETWEEN_CHUNKS = 24  # then a chunk delays fewer than 5 % of other sequences' tokens


@dataclass(frozen=True, kw_only=True)
class PrefillLimits:
    """Limits of the prompt tokens in a pass by the kind of prompt; None if only the size of the
    pass limits them. Long prompts are limited beside decoding sequences, with
    `passes_between` passes between their chunks."""

    batch: int | None = None
    long: int | None = None
    passes_between: int = 0


class PrefillBudget:
    """Measured speed of prefill and of decoding passes, and the time of the last interactive
    request."""

    def __init__(self) -> None:
        self._tokens_per_s: float | None = None
        self._decoding_pass_s: float | None = None
        # speed of the newest chunk of a long prompt: each chunk is slower than the one before
        self._long_tokens_per_s: float | None = None
        self._interactive_at: float | None = None

    def record_interactive(self, now: float) -> None:
        """Notes that an interactive request is running or waiting."""
        self._interactive_at = now

    @property
    def tokens_per_s(self) -> float | None:
        """Prefill speed in tokens per second; None if it is not measured yet."""
        return self._tokens_per_s

    def record_pass(
        self, tokens: int, seconds: float, *, prefill_tokens: int, has_long_chunk: bool = False
    ) -> None:
        """Updates the prefill speed by a pass of `tokens`, if enough of them were prefilled, or the
        time of a decoding pass if none was."""
        if seconds <= 0:
            return
        if has_long_chunk:
            self._long_tokens_per_s = tokens / seconds
        elif not prefill_tokens:
            self._decoding_pass_s = moving_average(self._decoding_pass_s, seconds)
        elif prefill_tokens >= _MINIMUM_TOKENS:
            self._tokens_per_s = moving_average(self._tokens_per_s, tokens / seconds)

    def limits(self, now: float) -> PrefillLimits:
        """Limits of the next pass."""
        speed = self._tokens_per_s or 0.0
        batch = None
        if self._interactive_at is not None and now - self._interactive_at <= _INTERACTIVE_S:
            batch = max(_MINIMUM_TOKENS, int(speed * _ADDED_LATENCY_S))
        long_speed = speed if self._long_tokens_per_s is None else self._long_tokens_per_s
        pass_tokens = long_speed * (self._decoding_pass_s or 0.0)  # in a decoding pass's time
        small_chunk = int(pass_tokens * _ADDED_TO_DECODING)
        if small_chunk >= _MINIMUM_CHUNK:
            return PrefillLimits(batch=batch, long=small_chunk)
        return PrefillLimits(
            batch=batch,
            long=max(_MINIMUM_CHUNK, int(pass_tokens * _PASSES_BETWEEN_CHUNKS)),
            passes_between=_PASSES_BETWEEN_CHUNKS,
        )
