"""Cost of passes by their number of tokens, learnt from earlier ones. Pure: times are arguments."""

from bisect import bisect_left, bisect_right, insort

from llm_backend.engine.moving_average import moving_average

_LARGEST = 256  # tokens of a pass whose cost matters for drafts
_STALE = 1000  # passes after which a measurement expires: a loaded machine becomes idle
_OUTLIER = 2.0  # maximum factor by which one pass may change the average
_OPTIMISTIC = 0.05  # share of a pass's cost that one token more costs, until it is measured


class PassCosts:
    """Cost of passes by their number of tokens: measured ones, linearly interpolated. More
    tokens than ever measured are assumed to be cheap, so that they are tried. Passes of more
    than `largest` tokens are ignored, and one that differs from earlier ones by more than a
    factor `outlier` counts as if it differed by that."""

    def __init__(self, *, largest: int = _LARGEST, outlier: float = _OUTLIER) -> None:
        self._largest = largest
        self._outlier = outlier
        self._seconds: dict[int, float] = {}
        self._measured_at: dict[int, int] = {}  # least recently measured first
        self._sizes: list[int] = []  # the measured ones, rising
        self._passes = 0

    @property
    def least(self) -> int | None:
        """The fewest tokens of a pass that was measured."""
        return self._sizes[0] if self._sizes else None

    def record_pass(self, tokens: int, seconds: float) -> None:
        """Update the cost by a measured pass of this number of tokens."""
        self._passes += 1
        self._forget_stale()
        if tokens > self._largest or seconds <= 0:
            return
        if tokens not in self._seconds:
            insort(self._sizes, tokens)
        known = self._seconds.get(tokens, seconds)
        seconds = min(max(seconds, known / self._outlier), known * self._outlier)
        self._seconds[tokens] = moving_average(known, seconds)
        self._measured_at.pop(tokens, None)
        self._measured_at[tokens] = self._passes

    def covers(self, tokens: int) -> bool:
        """True if a pass of this number of tokens was measured, or a smaller and a larger one."""
        return bool(self._sizes) and self._sizes[0] <= tokens <= self._sizes[-1]

    def of(self, tokens: int) -> float:
        """Cost of a pass of this number of tokens, comparable only with others of this function."""
        if tokens in self._seconds:
            return self._seconds[tokens]
        index = bisect_right(self._sizes, tokens)
        if not 0 < index < len(self._sizes):
            return self._extrapolate(tokens)
        below, above = self._sizes[index - 1], self._sizes[index]
        low, high = self._seconds[below], max(self._seconds[above], self._seconds[below])
        return low + (high - low) * (tokens - below) / (above - below)

    def _extrapolate(self, tokens: int) -> float:
        """Extrapolate from the nearest measured cost."""
        nearest, nearest_cost = 1, 1.0
        if self._sizes:
            nearest = self._sizes[0] if tokens < self._sizes[0] else self._sizes[-1]
            nearest_cost = self._seconds[nearest]
        return nearest_cost * (1 + _OPTIMISTIC * (tokens - 1)) / (1 + _OPTIMISTIC * (nearest - 1))

    def _forget_stale(self) -> None:
        while self._measured_at:
            tokens, measured_at = next(iter(self._measured_at.items()))
            if self._passes - measured_at <= _STALE:
                return
            del self._measured_at[tokens], self._seconds[tokens]
            del self._sizes[bisect_left(self._sizes, tokens)]
