"""What passes cost by their number of tokens, learnt from those before. Pure: times are told."""

__all__ = ["PassCosts"]

_LARGEST = 256  # tokens of a pass whose cost is remembered; guesses do not matter beside more
_STALE = 1000  # passes after which a cost is no longer believed: a loaded machine becomes idle
_SHARE = 0.2  # of the newest cost in what is believed
_OUTLIER = 2.0  # by what factor one pass may differ and be believed
_OPTIMISTIC = 0.05  # of a pass's cost for one token more, until it is known


class PassCosts:
    """What passes cost by their number of tokens: measured ones, and between them straight lines.
    More tokens than ever measured are thought to be cheap, so that they are tried."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._measured_at: dict[int, int] = {}
        self._passes = 0

    def measured(self, tokens: int, seconds: float) -> None:
        """A pass of so many tokens took so long."""
        self._passes += 1
        if tokens > _LARGEST or seconds <= 0:
            return
        known = self._seconds.get(tokens, seconds)
        if self._passes - self._measured_at.get(tokens, self._passes) > _STALE:
            known = seconds
        seconds = min(max(seconds, known / _OUTLIER), known * _OUTLIER)
        self._seconds[tokens] = known + _SHARE * (seconds - known)
        self._measured_at[tokens] = self._passes

    def of(self, tokens: int) -> float:
        """What a pass of so many tokens costs, in a unit that only compares."""
        known = [count for count, at in self._measured_at.items() if self._passes - at <= _STALE]
        below = max((count for count in known if count <= tokens), default=None)
        above = min((count for count in known if count >= tokens), default=None)
        if below is None:
            return self._unmeasured(above, tokens)
        if above is None or above == below:
            return self._unmeasured(below, tokens)
        low, high = self._seconds[below], max(self._seconds[above], self._seconds[below])
        return low + (high - low) * (tokens - below) / (above - below)

    def _unmeasured(self, nearest: int | None, tokens: int) -> float:
        nearest_cost = 1.0 if nearest is None else self._seconds[nearest]
        nearest = 1 if nearest is None else nearest
        return nearest_cost * (1 + _OPTIMISTIC * (tokens - 1)) / (1 + _OPTIMISTIC * (nearest - 1))
