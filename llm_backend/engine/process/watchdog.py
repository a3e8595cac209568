"""Watchdog: notices a worker that is alive and makes no progress, as it is stopped or hangs in
native code."""

import asyncio
import itertools
from collections.abc import Callable

from llm_backend.engine.messages import Probe
from llm_backend.engine.process.engine_connection import EngineConnection

__all__ = ["hung"]

_LOOKS = 4  # checks within the timeout, so that a hang is noticed at most a quarter later


async def hung(
    link: EngineConnection, patience_s: float, has_work: Callable[[EngineConnection], bool]
) -> None:
    """Returns once the worker has left a probe unanswered for `patience_s`. An idle worker is
    not probed."""
    for number in itertools.count():
        await asyncio.sleep(patience_s / _LOOKS)
        if not has_work(link):
            continue
        call = link.call(Probe(id=f"watchdog-{number}"))
        try:
            async with asyncio.timeout(patience_s):
                await call.next()
        except TimeoutError:
            return
        finally:
            link.hang_up(call)
