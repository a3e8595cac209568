"""Cost of a pass by its number of tokens, from measured passes. Pure: times are arguments."""

from bisect import bisect_left, bisect_right, insort

from llm_backend.engine.moving_average import moving_average

_LARGEST = 256  # tokens of a pass whose cost matters for drafts
_STALE = 1000  # passes after which a measurement expires: the machine's load changes
_OUTLIER = 2.0  # maximum factor by which one pass may change the average
_OPTIMISTIC = 0.05  # assumed share of a pass's cost that one more token adds, until it is measured


class PassCosts:
    """Cost of a pass by its number of tokens: measured, linearly interpolated between measured
    sizes, and assumed to be low beyond them, so that larger passes are tried. Passes of more than
    `largest` tokens are ignored. A time is clipped to a factor `outlier` of the average."""

    def __init__(self, *, largest: int = _LARGEST, outlier: float = _OUTLIER) -> None:
        self._largest = largest
        self._outlier = outlier
        self._seconds: dict[int, float] = {}
        self._measured_at: dict[int, int] = {}  # least recently measured first
        self._sizes: list[int] = []  # measured sizes, ascending
        self._passes = 0

    @property
    def smallest_measured(self) -> int | None:
        """Number of tokens of the smallest measured pass."""
        return self._sizes[0] if self._sizes else None

    def record_pass(self, tokens: int, seconds: float) -> None:
        """Updates the average cost of a pass of this number of tokens."""
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

    def cost(self, tokens: int) -> float:
        """Cost of a pass of this number of tokens: seconds, or an arbitrary unit before the first
        measurement."""
        if tokens in self._seconds:
            return self._seconds[tokens]
        index = bisect_right(self._sizes, tokens)
        if not 0 < index < len(self._sizes):
            return self._extrapolate(tokens)
        below, above = self._sizes[index - 1], self._sizes[index]
        low, high = self._seconds[below], max(self._seconds[above], self._seconds[below])
        return low + (high - low) * (tokens - below) / (above - below)

    def _extrapolate(self, tokens: int) -> float:
        """Extrapolates from the nearest measured cost."""
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
