"""Engine leases: a client's right to use engines that another process owns, and its requests."""

import asyncio
from collections.abc import Callable

from llm_backend.backends.local.shared_manager.manager_messages import (
    EngineBusy,
    EngineIdle,
    FromLodger,
)
from llm_backend.engine import Engine

__all__ = ["EngineLeases", "PendingRequest"]

IDLE_S = 0.2  # shorter gaps, as between two requests of a sequential client, do not report idle


class EngineLeases:
    """Lease of one engine of another process, with a count of this process's requests there."""

    def __init__(
        self, model: str, door: str, engine: Engine, tell: Callable[[FromLodger], None]
    ) -> None:
        self.model = model
        self.door = door
        self.engine = engine
        self.is_leaving = False
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._tell = tell
        self._is_busy = False  # as last reported to the owner
        self._idle: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """Counts one more request; the first one reports the engine busy."""
        self._users += 1
        self._unused.clear()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._is_busy:
            self._is_busy = True
            self._tell(EngineBusy(door=self.door))

    def leave(self) -> None:
        """Counts one request less; reports the engine idle `IDLE_S` after the last one."""
        self._users -= 1
        if not self._users:
            self._unused.set()
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._rest)

    async def drained(self) -> None:
        """Waits until this process has no request on the engine."""
        while self._users:
            await self._unused.wait()

    def _rest(self) -> None:
        self._idle = None
        self._is_busy = False
        self._tell(EngineIdle(door=self.door))


class PendingRequest:
    """Request to the owner that is not yet answered. A granted engine gets a user at once, since
    the owner's next message may announce it as leaving."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.stay: EngineLeases | None = None
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def grant(self, stay: EngineLeases | None) -> None:
        """Completes the request; `stay` is the lease if an engine was requested."""
        if not self._answer.done():
            self.stay = stay
            if stay is not None:
                stay.enter()
            self._answer.set_result(None)

    def refuse(self, error: Exception) -> None:
        """Fails the request with this error."""
        if not self._answer.done():
            self._answer.set_exception(error)

    async def answered(self) -> None:
        """Waits for the owner's answer. Raises the error of a refused request."""
        try:
            await self._answer
        except asyncio.CancelledError:
            if self.stay is not None:  # it was granted in the same loop iteration
                self.stay.leave()
            raise
