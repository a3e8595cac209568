"""Which models are in memory: loaded on demand, unloaded at rest or for others, within a budget.

A model that is wanted and not there is loaded. Where it does not fit beside the others, those are
unloaded that have rested longest, and then those at work: they take no new request, finish what
they have begun, and go. Whoever wants them meanwhile waits, for a bounded time and in a bounded
number, and gets them back in its turn. So requests for two models that do not fit together take
turns, and none is cut off.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from llm_backend.engine import Engine, EngineState
from llm_backend.errors import (
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Unsupported,
)

__all__ = ["Berth", "EngineRoom", "ModelState", "Patience"]

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 2.0


class ModelState(StrEnum):
    """What becomes of a request for a model."""

    UNLOADED = "unloaded"  # it loads the model
    LOADING = "loading"  # it waits; also while the engine is started again after a death
    LOADED = "loaded"
    UNLOADING = "unloading"  # what was begun is finished; it waits, and loads the model again
    FAILED = "failed"  # it is told that the model cannot be loaded


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How many requests wait for a model to be loaded at most, and for how many seconds."""

    waiting_limit: int = 256
    deadline_s: float = 120


class Berth:
    """One model's place in the room: its engine while it is in memory, and who uses that.

    `make` makes an engine, and `needs` says how many bytes it will take. After `idle_unload_s`
    without a user it is unloaded; None keeps it.
    """

    def __init__(
        self,
        room: "EngineRoom",
        name: str,
        make: Callable[[], Engine],
        needs: Callable[[], Awaitable[int]],
        *,
        patience: Patience | None = None,
        idle_unload_s: float | None = None,
    ) -> None:
        self.name = name
        self.make = make
        self.needs = needs
        self.idle_unload_s = idle_unload_s
        self.engine: Engine | None = None
        self.held_bytes = 0
        self.users = 0
        self.used_at = 0.0
        self.is_leaving = False
        self.is_removed = False
        self.gone = asyncio.Event()
        self._room = room
        self._patience = patience or Patience()
        self._waiting = 0
        self._loading: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def state(self) -> ModelState:
        """Where the model is between disk and memory."""
        if self.engine is None:
            return ModelState.LOADING if self._loading else ModelState.UNLOADED
        if self.is_leaving:
            return ModelState.UNLOADING
        if self.engine.state is EngineState.READY:
            return ModelState.LOADED
        return ModelState.FAILED if self._has_failed else ModelState.LOADING

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Engine]:
        """The engine, which stays until the block is left; loads the model if it is not there.

        Raises `ApiError` where the model does not fit, or is not there in time, and what the
        engine raises where it cannot be started.
        """
        engine, is_going = self.engine, self.is_leaving or self.is_removed
        if engine is None or is_going or engine.state is not EngineState.READY:
            engine = await self._awaited()
        else:
            self._enter()
        try:
            yield engine
        finally:
            self._leave()

    async def load(self) -> None:
        """Have the model in memory; one that could not be loaded is tried again."""
        if self.engine is not None and self._has_failed:
            await self._room.unload(self)
        async with self.used():
            return

    async def unload(self) -> None:
        """Have the model's memory free, once all that was begun is finished."""
        await self._room.unload(self)

    def check_changeable(self) -> None:
        """Raises `Unsupported` where another process decides what is in memory."""
        self._room.check_changeable()

    async def drained(self) -> None:
        """Returns when nobody uses the engine, or waits for it to be there."""
        while self.users:
            await self._unused.wait()

    def rest(self) -> None:
        """From now on nobody uses it, until somebody does."""
        self.used_at = time.monotonic()
        self._unused.set()
        if self.idle_unload_s is not None:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self.idle_unload_s, self._room.unload_behind, self)

    def stay(self) -> None:
        """It is not unloaded for its idleness."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    @property
    def _has_failed(self) -> bool:
        assert self.engine is not None, "an engine fails"
        return self.engine.state in (EngineState.FAILED, EngineState.CLOSED)

    def _enter(self) -> None:
        self.users += 1
        self._unused.clear()
        self.stay()

    def _leave(self) -> None:
        self.users -= 1
        if not self.users:
            self.rest()

    async def _awaited(self) -> Engine:
        if self._waiting >= self._patience.waiting_limit:
            raise Overloaded(
                f"{self._waiting} requests wait for `{self.name}` to be loaded, as many as may.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience.deadline_s):
                return await self._entered()
        except TimeoutError as error:
            raise EngineUnavailable(
                f"`{self.name}` was not loaded within {self._patience.deadline_s:g} s.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        finally:
            self._waiting -= 1

    async def _entered(self) -> Engine:
        """The engine, once it is ready. Who waits for it is its user already, so that the next one
        who needs the room does not take it before they come in."""
        while self.is_leaving:
            await self.gone.wait()
        if self.is_removed:
            raise ModelNotFound(self.name)
        self._enter()
        try:
            engine = self.engine or await self._loaded()
            await engine.ready()
        except BaseException:
            self._leave()
            raise
        return engine

    async def _loaded(self) -> Engine:
        """One loading for all who wait; it goes on when they give up."""
        if self._loading is None:
            self._loading = self._room.begin(self._room.load(self))
            self._loading.add_done_callback(self._has_loaded)
        await asyncio.shield(self._loading)
        assert self.engine is not None, "it was loaded, and is kept for its users"
        return self.engine

    def _has_loaded(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # who waits is told; maybe nobody does any more


class EngineRoom:
    """The engines that are in memory, in `budget_bytes` at most (None: in any number).

    `is_fixed`: they are loaded and kept by another process, so nothing can be unloaded from here.
    """

    def __init__(self, budget_bytes: int | None = None, *, is_fixed: bool = False) -> None:
        self.budget_bytes = budget_bytes
        self.is_fixed = is_fixed
        self._berths: list[Berth] = []
        self._promised = 0  # bytes that are kept free for the one whose turn it is
        self._turns = asyncio.Lock()  # who needs the room of others comes one by one
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for berth in self._berths:
            berth.stay()
        engines = [berth.engine for berth in self._berths if berth.engine is not None]
        await asyncio.gather(*(engine.close() for engine in engines))

    @property
    def held_bytes(self) -> int:
        """What the engines in memory take, by their estimates."""
        return sum(berth.held_bytes for berth in self._berths)

    def add(self, berth: Berth) -> None:
        """A place more."""
        self._berths.append(berth)

    async def remove(self, berth: Berth) -> None:
        """A place less, once all that was begun there is finished."""
        berth.is_removed = True
        await berth.drained()
        await self._vacate(berth)
        self._berths.remove(berth)

    async def start(self, berth: Berth) -> bool:
        """Begin to load a model if it fits beside the others; does not wait for it. Raises
        `InvalidRequest` for one that never fits."""
        needed = await self._needed(berth)
        if not self._fits(needed):
            log.info("model_waits_for_room", extra={"model": berth.name, "bytes": needed})
            return False
        self._start(berth, needed)
        return True

    async def load(self, berth: Berth) -> None:
        """Begin to load a model, once others have made room for it."""
        needed = await self._needed(berth)
        log.info("model_wanted", extra={"model": berth.name, "bytes": needed})
        if self._fits(needed):
            self._start(berth, needed)
            return
        async with self._turns:
            self._promised = needed
            try:
                while not self._fits(0):
                    await self._make_room()
            finally:
                self._promised = 0
            self._start(berth, needed)

    async def unload(self, berth: Berth) -> None:
        """Free a model's memory, once all that was begun is finished."""
        self.check_changeable()
        await self._vacate(berth)

    def check_changeable(self) -> None:
        """Raises `Unsupported` where another process decides."""
        if self.is_fixed:
            raise Unsupported(
                "With `processes` above 1 models are loaded at the start and stay as they are: "
                "serve with one process to change that while it runs."
            )

    def unload_behind(self, berth: Berth) -> None:
        """Free the memory of a model that is at rest, without waiting."""
        if not berth.users and berth.engine is not None:
            self.begin(self._vacate(berth))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that nobody waits for; it is ended when the room is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _needed(self, berth: Berth) -> int:
        needed = await berth.needs() if self.budget_bytes is not None else 0
        if self.budget_bytes is not None and needed > self.budget_bytes:
            raise InvalidRequest(
                f"`{berth.name}` would take about {_in_words(needed)} of memory, and local models "
                f"may take {_in_words(self.budget_bytes)}: give it fewer `slots` or "
                "`context_tokens`, a smaller `cache_type`, or raise `memory_budget`.",
                param="model",
                code="model_too_large",
            )
        return needed

    def _fits(self, more: int) -> bool:
        held = self.held_bytes + self._promised + more
        return self.budget_bytes is None or held <= self.budget_bytes

    def _start(self, berth: Berth, needed: int) -> None:
        berth.held_bytes = needed
        berth.engine = berth.make()
        berth.engine.start()
        if not berth.users:
            berth.rest()

    async def _make_room(self) -> None:
        """Unload as many as must go: those at rest before those at work, the longest unused
        first."""
        assert self.budget_bytes is not None, "there is room without end"
        excess = self.held_bytes + self._promised - self.budget_bytes
        going = [berth for berth in self._berths if berth.engine is not None]
        going.sort(key=lambda berth: (not berth.is_leaving, berth.users > 0, berth.used_at))
        freed, chosen = 0, []
        for berth in going:
            if freed >= excess:
                break
            chosen.append(berth)
            freed += berth.held_bytes
        await asyncio.gather(*(self._vacate(berth) for berth in chosen))

    async def _vacate(self, berth: Berth) -> None:
        if berth.engine is None:
            return
        if berth.is_leaving:
            await berth.gone.wait()
            return
        berth.is_leaving = True
        berth.gone.clear()
        berth.stay()
        try:
            await berth.drained()
            await berth.engine.close()
            berth.engine, berth.held_bytes = None, 0
            log.info("model_unloaded", extra={"model": berth.name})
        finally:
            berth.is_leaving = False
            berth.gone.set()


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
