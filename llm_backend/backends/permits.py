"""Permits: limits of the requests of one kind that are computed at once."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol


class Permits(Protocol):
    """A limit whose callers wait in turns; `acquire` may raise `Overloaded`."""

    async def acquire(self, caller: str) -> None: ...
    def release(self) -> None: ...


@asynccontextmanager
async def hold_permit(permits: Permits, caller: str) -> AsyncIterator[float]:
    """Holds a permit within the context, and yields the seconds that the caller has waited for
    it."""
    arrived_s = time.monotonic()
    await permits.acquire(caller)
    try:
        yield time.monotonic() - arrived_s
    finally:
        permits.release()
