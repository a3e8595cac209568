"""Waits for a condition in the time of the event loop, on a busy machine too."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["comes_true", "settle", "wait_until"]

_TICK_S = 0.005
_LIMIT_S = 60


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


async def settle(seconds: float = 0.05) -> None:
    """Lets messages between participants of this event loop arrive.

    A message needs several rounds of the loop. A plain `asyncio.sleep` may end after one, if the
    process was not running meanwhile.
    """
    await comes_true(lambda: False, within_s=seconds)


def wait_until(
    claim: Callable[[], object],
    sleep_ms: Callable[[int], object] = lambda ms: time.sleep(ms / 1000),
) -> None:
    """Returns once a claim about other processes holds. Raises `AssertionError` after a minute.
    With the browser's `page.wait_for_timeout` as `sleep_ms`, its events are handled meanwhile."""
    deadline = time.monotonic() + _LIMIT_S
    while not claim():
        assert time.monotonic() < deadline
        sleep_ms(20)
