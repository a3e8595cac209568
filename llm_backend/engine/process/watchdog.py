"""Watchdog: sends probes to find a worker that is alive but makes no progress, because it is
stopped or hangs in native code."""

import asyncio
import itertools
from collections.abc import Callable

from llm_backend.engine.messages import Probe
from llm_backend.engine.process.engine_connection import EngineConnection

_CHECKS = 4  # checks within the timeout, so that a hang is noticed at most a quarter later


async def wait_until_hung(
    connection: EngineConnection, timeout_s: float, should_probe: Callable[[EngineConnection], bool]
) -> None:
    """Returns once the worker has left a probe unanswered for `timeout_s`. A probe is only sent
    while `should_probe(connection)` is true."""
    for number in itertools.count():
        await asyncio.sleep(timeout_s / _CHECKS)
        if not should_probe(connection):
            continue
        call = connection.call(Probe(id=f"watchdog-{number}"))
        try:
            async with asyncio.timeout(timeout_s):
                await call.next()
        except TimeoutError:
            return
        finally:
            connection.end_call(call)
