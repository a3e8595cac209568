"""Whether a file is read faster than its tokens are computed. Pure: times are told."""

__all__ = ["ReadingCosts"]

_SHARE = 0.3  # of the newest cost in what is believed
_FORGETTING = 0.9  # by which a cost that was too high falls, until it is tried again


class ReadingCosts:
    """What reading has cost; as long as nothing is known of one side, reading is tried."""

    def __init__(self) -> None:
        self._seconds_per_byte: float | None = None

    def measured(self, size: int, seconds: float) -> None:
        """A file of so many bytes came into its cells in so long."""
        newest = seconds / max(1, size)
        known = self._seconds_per_byte
        self._seconds_per_byte = newest if known is None else known + _SHARE * (newest - known)

    def is_worth(self, size: int, tokens: int, tokens_per_s: float | None) -> bool:
        """Whether to read so many bytes takes less time than to compute so many tokens."""
        if self._seconds_per_byte is None or tokens_per_s is None:
            return True
        if size * self._seconds_per_byte < tokens / tokens_per_s:
            return True
        self._seconds_per_byte *= _FORGETTING
        return False
