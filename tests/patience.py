"""Waits for a condition in the time of the event loop, on a busy machine too."""

import asyncio
from collections.abc import Callable

__all__ = ["comes_true"]

_TICK_S = 0.005


async def comes_true(claim: Callable[[], bool], *, within_s: float) -> bool:
    """True if the claim becomes true within this time of the event loop.

    Time of other processes does not count. If all participants run in this loop, limits of some
    milliseconds hold on any machine.
    """
    for _ in range(round(within_s / _TICK_S)):
        if claim():
            return True
        await asyncio.sleep(_TICK_S)
    return claim()
