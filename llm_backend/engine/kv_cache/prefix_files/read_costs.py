"""Cost model of prefix files: the time to read a file, and to compute its tokens. Pure: times are
arguments."""

_SHARE = 0.3  # of the newest cost in the moving average
_DECAY = 0.9  # factor by which a cost that was too high decays, until reading is tried again


class ReadCosts:
    """Measured cost of reading; while either cost is unknown, reading is tried."""

    def __init__(self) -> None:
        self._seconds_per_byte: float | None = None

    def record_read(self, size: int, seconds: float) -> None:
        """Update the cost: a file of `size` bytes was restored in `seconds`."""
        newest = seconds / max(1, size)
        known = self._seconds_per_byte
        self._seconds_per_byte = newest if known is None else known + _SHARE * (newest - known)

    def is_worth(self, size: int, tokens: int, tokens_per_s: float | None) -> bool:
        """True if reading `size` bytes takes less time than computing `tokens`."""
        if self._seconds_per_byte is None or tokens_per_s is None:
            return True
        if size * self._seconds_per_byte < tokens / tokens_per_s:
            return True
        self._seconds_per_byte *= _DECAY
        return False
