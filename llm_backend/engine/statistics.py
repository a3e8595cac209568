"""Counters of a worker's passes, from which its speed and its occupancy follow."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Statistics:
    """Counters since the worker started; `busy_s` is the time spent in steps.

    Of the tokens of texts that got a slot (`admitted_tokens`), `cached_tokens` were in a cached
    prefix; `generated_tokens` were generated. `media_tokens`, of images and audio, were computed
    apart from passes, in `media_s`. `prefix_reads` files of prefixes were restored, which saved
    computing `prefix_read_tokens`; `prefix_writes` were written. `context_shifts` counts how often
    the oldest tokens of an answer were dropped. `deaths` is the number of earlier workers
    that died unexpectedly or could not start.
    """

    passes: int = 0
    sequences: int = 0
    computed_tokens: int = 0
    busy_s: float = 0.0
    admitted_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    media_tokens: int = 0
    media_s: float = 0.0
    prefix_reads: int = 0
    prefix_read_tokens: int = 0
    prefix_writes: int = 0
    context_shifts: int = 0
    deaths: int = 0

    def count(self, *, sequences: int, tokens: int) -> None:
        """Counts a pass by its numbers of sequences and tokens."""
        self.passes += 1
        self.sequences += sequences
        self.computed_tokens += tokens


class PassMeter:
    """Derives the cost of each pass from the counters."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._passes = statistics.passes
        self._tokens = statistics.computed_tokens
        self._seconds = statistics.busy_s - statistics.media_s

    def newest(self) -> tuple[int, float] | None:
        """Tokens and seconds of the pass since the last call; None if there was none, or several.
        The time of images and audio is not included."""
        now = self._statistics
        passes, tokens, seconds = self._passes, self._tokens, self._seconds
        self._passes = now.passes
        self._tokens = now.computed_tokens
        self._seconds = now.busy_s - now.media_s
        if self._passes != passes + 1:
            return None
        return self._tokens - tokens, self._seconds - seconds
