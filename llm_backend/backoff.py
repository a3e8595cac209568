"""Exponential backoff: delays before something that failed is tried again."""

_DOUBLINGS = 30  # more than any limit needs; a power beyond 1023 would overflow


def backoff_delay_s(first_s: float, number: int, limit_s: float) -> float:
    """Returns the delay of the given number, from 1 on: each is twice as long as the one before."""
    return min(first_s * 2.0 ** min(number - 1, _DOUBLINGS), limit_s)
