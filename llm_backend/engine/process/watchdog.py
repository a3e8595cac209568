"""Notices a worker that lives but does not turn any more: stopped, or lost in native code."""

import asyncio
import itertools
from collections.abc import Callable

from llm_backend.engine.messages import Probe
from llm_backend.engine.process.engine_connection import EngineConnection

__all__ = ["hung"]

_LOOKS = 4  # looks within the patience, so that a hang is noticed at most a quarter later


async def hung(
    link: EngineConnection, patience_s: float, has_work: Callable[[EngineConnection], bool]
) -> None:
    """Returns once the worker has left a probe unanswered for `patience_s`. One that has no work is
    not woken."""
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
