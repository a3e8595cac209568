"""Probe of an ejected upstream that gets no request, which would stay ejected for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from llm_backend.errors import ApiError

IDLE_S = 60.0  # of a request's absence: any request after the ejection is a probe itself


class IdleProbe:
    """Calls `probe` a minute after the end of an ejection if `is_due` is still true then."""

    def __init__(self, probe: Callable[[], Awaitable[object]], is_due: Callable[[], bool]) -> None:
        self._probe = probe
        self._is_due = is_due
        self._waiting: asyncio.Task[None] | None = None

    def schedule(self, ejection_s: float) -> None:
        """Schedules the probe after an ejection of this length; it replaces an earlier one."""
        previous, self._waiting = self._waiting, asyncio.create_task(self._wait(ejection_s))
        if previous is not None and previous is not asyncio.current_task():
            previous.cancel()

    def close(self) -> None:
        """Cancels the probe."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self, ejection_s: float) -> None:
        await asyncio.sleep(ejection_s + IDLE_S)
        if not self._is_due():
            return
        with suppress(ApiError):  # already logged; the upstream is ejected again
            await self._probe()
