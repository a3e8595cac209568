"""Probe of an ejected upstream that gets no request, which would stay ejected for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from llm_backend.errors import ApiError

IDLE_S = 60.0  # of a request's absence: any request after the ejection is a probe itself


class IdleProbe:
    """Calls `probe` each minute after the end of an ejection, while `is_due`."""

    def __init__(self, probe: Callable[[], Awaitable[object]], is_due: Callable[[], bool]) -> None:
        self._probe = probe
        self._is_due = is_due
        self._waiting: asyncio.Task[None] | None = None

    def schedule(self, ejection_s: float) -> None:
        """Schedules probes after an ejection of this length; they replace earlier ones."""
        self.close()
        self._waiting = asyncio.create_task(self._wait(ejection_s))

    def close(self) -> None:
        """Cancels the probes."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self, ejection_s: float) -> None:
        await asyncio.sleep(ejection_s + IDLE_S)
        while self._is_due():
            with suppress(ApiError):  # already logged
                await self._probe()
            await asyncio.sleep(IDLE_S)
