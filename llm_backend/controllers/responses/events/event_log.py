"""Buffer of a response's stream events: stored in order, in batches, one write at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from llm_backend import exact_json
from llm_backend.store import Events, LeaseLost

# Pause between writes, for at most twenty batches to a follower, and commits, in a second.
PAUSE_S = 0.05

log = logging.getLogger(__name__)


def as_lines(events: Sequence[Mapping[str, Any]]) -> Events:
    """Returns the events as JSON lines for the store."""
    if not events:
        return Events()
    lines = [exact_json.dumps(event).decode() for event in events]
    return Events(lines=lines, last_number=events[-1]["sequence_number"])


class EventLog:
    """Buffers events and stores them by `append` in the background. A failed write is raised by
    the next `add`, or at the exit; it is logged if the exit has another error, unless the response
    was cancelled or deleted."""

    def __init__(self, append: Callable[[Events], Awaitable[None]]) -> None:
        self._append = append
        self._waiting: list[Mapping[str, Any]] = []
        self._has_waiting = asyncio.Event()
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is None or failure is error:
            return
        if error is None:
            raise failure
        if isinstance(failure, LeaseLost):
            return  # the response was cancelled or deleted
        log.error("response_events_not_stored", extra={"reason": str(failure)})

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Queues events to be stored. Raises the error of an earlier write."""
        self._raise_failure()
        self._waiting += events
        if events:
            self._has_waiting.set()

    async def drain(self) -> list[Mapping[str, Any]]:
        """Stops writing and returns the events that are not stored: the caller stores them with
        the last write. Raises the error of an earlier write."""
        async with self._writing:  # a write in progress is finished first
            self._raise_failure()
            self._task.cancel()
            return self._take_waiting()

    async def _run(self) -> None:
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            async with self._writing:
                await self._append(as_lines(self._take_waiting()))
            await asyncio.sleep(PAUSE_S)

    def _take_waiting(self) -> list[Mapping[str, Any]]:
        batch, self._waiting = self._waiting, []
        return batch

    def _raise_failure(self) -> None:
        if self._task.done() and not self._task.cancelled():
            self._task.result()
