"""Exponential moving average of measured values. Pure."""

_SHARE = 0.2  # share of the newest value


def moving_average(known: float | None, newest: float, *, share: float = _SHARE) -> float:
    """The average after its `newest` value; None is the average of no values."""
    return newest if known is None else known + share * (newest - known)
