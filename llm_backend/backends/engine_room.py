"""Which models are in memory: loaded on demand, unloaded at rest or for others, within a budget.

A model that is wanted and not there is loaded. Where it does not fit beside the others, those are
unloaded that have rested longest, and then those at work: they take no new request, finish what
they have begun, and go. Whoever wants them meanwhile waits, for a bounded time and in a bounded
number, and gets them back in its turn. So requests for two models that do not fit together take
turns, and none is cut off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from llm_backend.backends.berth import Berth, MakeEngine, Patience
from llm_backend.errors import InvalidRequest

__all__ = ["EngineRoom"]

log = logging.getLogger(__name__)


class EngineRoom:
    """The engines that are in memory, in `budget_bytes` at most (None: in any number)."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.berths: list[Berth] = []
        self._promised = 0  # bytes that are kept free for the one whose turn it is
        self._turns = asyncio.Lock()  # who needs the room of others comes one by one
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for berth in self.berths:
            berth.stay()
        engines = [berth.engine for berth in self.berths if berth.engine is not None]
        await asyncio.gather(*(engine.close() for engine in engines))

    @property
    def held_bytes(self) -> int:
        """What the engines in memory take, by their estimates."""
        return sum(berth.held_bytes for berth in self.berths)

    def berth(
        self,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: Patience | None = None,
        idle_unload_s: float | None = None,
    ) -> Berth:
        """A place more, for this model."""
        berth = Berth(self, name, make, needs, patience=patience, idle_unload_s=idle_unload_s)
        self.add(berth)
        return berth

    def add(self, berth: Berth) -> None:
        """A place more."""
        self.berths.append(berth)

    async def remove(self, berth: Berth) -> None:
        """A place less, once all that was begun there is finished."""
        berth.is_removed = True
        self.changed()
        await berth.drained()
        await self._vacate(berth)
        self.berths.remove(berth)

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
        await self._vacate(berth)

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

    def changed(self) -> None:
        """What is in memory is another; for rooms that must tell somebody."""

    async def emptied(self, berth: Berth) -> None:
        """Returns when nobody elsewhere uses the engine, which takes nothing new; for rooms whose
        engines others use, too."""

    def next_door(self) -> Path | None:
        """Where the next engine lets others in; None lets nobody in."""
        return None

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
        engine = berth.make(self.next_door())
        engine.start()
        berth.engine, berth.held_bytes = engine, needed
        if not berth.users:
            berth.rest()
        self.changed()

    async def _make_room(self) -> None:
        """Unload as many as must go: those at rest before those at work, the longest unused
        first."""
        assert self.budget_bytes is not None, "there is room without end"
        excess = self.held_bytes + self._promised - self.budget_bytes
        going = [berth for berth in self.berths if berth.engine is not None]
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
        self.changed()
        try:
            await berth.drained()
            await self.emptied(berth)
            await berth.engine.close()
            berth.engine, berth.held_bytes = None, 0
            log.info("model_unloaded", extra={"model": berth.name})
        finally:
            berth.is_leaving = False
            berth.gone.set()
            self.changed()


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
