"""What one process has of a room that another owns: engines that it uses, and what it asked for."""

import asyncio
from collections.abc import Callable

from llm_backend.backends.local.shared_manager.manager_messages import (
    EngineBusy,
    EngineIdle,
    FromLodger,
)
from llm_backend.engine import Engine

__all__ = ["EngineLeases", "PendingRequest"]

IDLE_S = 0.2  # between two requests of a client that asks one after the other it is not idle


class EngineLeases:
    """An engine that this process is a guest of, and its requests there."""

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
        self._is_busy = False  # as the owner knows it
        self._idle: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """A request more."""
        self._users += 1
        self._unused.clear()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._is_busy:
            self._is_busy = True
            self._tell(EngineBusy(door=self.door))

    def leave(self) -> None:
        """A request less; for a moment it may be followed by another."""
        self._users -= 1
        if not self._users:
            self._unused.set()
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._rest)

    async def drained(self) -> None:
        """Returns when it has none."""
        while self._users:
            await self._unused.wait()

    def _rest(self) -> None:
        self._idle = None
        self._is_busy = False
        self._tell(EngineIdle(door=self.door))


class PendingRequest:
    """What was asked of the owner, until it is answered. An engine that is granted is entered at
    once: what the owner says next may be that it is leaving."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.stay: EngineLeases | None = None
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def grant(self, stay: EngineLeases | None) -> None:
        """It is so; where an engine was asked for, it is there."""
        if not self._answer.done():
            self.stay = stay
            if stay is not None:
                stay.enter()
            self._answer.set_result(None)

    def refuse(self, error: Exception) -> None:
        """It cannot be."""
        if not self._answer.done():
            self._answer.set_exception(error)

    async def answered(self) -> None:
        """Returns when it is so, or raises why it cannot be."""
        try:
            await self._answer
        except asyncio.CancelledError:
            if self.stay is not None:  # it was granted in this very moment
                self.stay.leave()
            raise
