"""Engine users: reference count of the requests that use an engine, and the idle timer (keep-alive,
TTL) that unloads it, `idle_unload_s` after the last one."""

import asyncio
import time
from collections.abc import Callable


class EngineUsers:
    """Counts requests; calls `on_idle` after `idle_s` seconds without any (None: never)."""

    def __init__(self, idle_s: float | None, on_idle: Callable[[], object]) -> None:
        self.count = 0
        self.idle_since = 0.0
        self._idle_s = idle_s
        self._on_idle = on_idle
        self._idle_timer: asyncio.TimerHandle | None = None
        self._unused = asyncio.Event()
        self._unused.set()

    def enter(self) -> None:
        """Counts one more request, and stops the idle timer."""
        self.count += 1
        self._unused.clear()
        self.stop_idle_timer()

    def leave(self) -> None:
        """Counts one request less; the last one starts the idle timer."""
        self.count -= 1
        if not self.count:
            self.start_idle_timer()

    async def wait_until_unused(self) -> None:
        """Waits until no request is counted."""
        while self.count:
            await self._unused.wait()

    def start_idle_timer(self) -> None:
        """Starts the idle timer anew, and wakes those that wait until the engine is unused."""
        self.stop_idle_timer()
        self.idle_since = time.monotonic()
        self._unused.set()
        if self._idle_s is not None:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._idle_s, self._on_idle)

    def stop_idle_timer(self) -> None:
        """Ends it: the engine is used again, or closed."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
