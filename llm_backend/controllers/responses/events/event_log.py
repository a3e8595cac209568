"""Events on their way into the store: several at once, in order, at most one write at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from llm_backend import exact_json
from llm_backend.store import Events

__all__ = ["EventLog", "as_lines"]

PAUSE_S = 0.05  # between writes: a follower sees twenty pieces a second, the disk as many commits


def as_lines(events: Sequence[Mapping[str, Any]]) -> Events:
    """The events as they are stored; none is a `last_number` of nothing."""
    if not events:
        return Events()
    lines = [exact_json.dumps(event).decode() for event in events]
    return Events(lines=lines, last_number=events[-1]["sequence_number"])


class EventLog:
    """Takes events and has them stored by `append`, a moment later; what cannot be stored is raised
    to who adds the next one."""

    def __init__(self, append: Callable[[Events], Awaitable[None]]) -> None:
        self._append = append
        self._waiting: list[Mapping[str, Any]] = []
        self._is_news = asyncio.Event()
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Store these, too. Raises what prevented it for those before."""
        self._raise_failure()
        self._waiting += events
        if events:
            self._is_news.set()

    async def rest(self) -> list[Mapping[str, Any]]:
        """What has not been stored and will not be: it belongs to the last write, which is the
        caller's."""
        async with self._writing:  # what is being written comes before it
            self._raise_failure()
            self._task.cancel()
            return self._taken()

    async def _run(self) -> None:
        while True:
            await self._is_news.wait()
            self._is_news.clear()
            async with self._writing:
                await self._append(as_lines(self._taken()))
            await asyncio.sleep(PAUSE_S)

    def _taken(self) -> list[Mapping[str, Any]]:
        taken, self._waiting = self._waiting, []
        return taken

    def _raise_failure(self) -> None:
        if self._task.done() and not self._task.cancelled():
            self._task.result()
