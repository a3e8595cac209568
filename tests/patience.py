"""Waiting for what is to come true soon, on a machine that may be busy with other things."""

import asyncio
from collections.abc import Callable

__all__ = ["comes_true"]

_TICK_S = 0.005


async def comes_true(claim: Callable[[], bool], *, within_s: float) -> bool:
    """Whether it comes true within so much time of this loop.

    Time that the machine gave to others does not count. Where all that takes part runs in this
    loop, a promise of some milliseconds can so be held on any machine.
    """
    for _ in range(round(within_s / _TICK_S)):
        if claim():
            return True
        await asyncio.sleep(_TICK_S)
    return claim()
