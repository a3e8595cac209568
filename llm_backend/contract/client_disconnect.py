"""Cancels work when its client disconnects."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from llm_backend.contract.request import ApiRequest
from llm_backend.errors import ClientGone

__all__ = ["Left", "WhileClientConnected", "unless_gone", "unless_left"]

T = TypeVar("T")

Left = Callable[[], Coroutine[Any, Any, object]]
"""Returns when the client has disconnected; each caller starts a new coroutine."""

WATCHED_AFTER_S = 0.05  # a shorter block is not worth cancelling


class WhileClientConnected:
    """Context manager that cancels its block when the client disconnects.

    The block is no task of its own: every cancellation, from the disconnect or from elsewhere,
    reaches the await that the block is at, so that no acquired resource leaks. At the block's end
    the own cancellation is undone (`Task.uncancel`, as in `asyncio.timeout`); one from elsewhere
    passes through. Watching costs a task, so it begins only after `WATCHED_AFTER_S`.
    """

    def __init__(self, left: Left) -> None:
        self._left = left
        self._has_cancelled = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def has_left(self) -> bool:
        """True if the client disconnected before the block's end."""
        return self._has_cancelled

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        loop = asyncio.get_running_loop()
        self._beginning = loop.call_later(WATCHED_AFTER_S, self._begin_to_watch)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._beginning.cancel()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # a reference cycle would wait for the garbage collector
        if not self._has_cancelled:
            return False
        is_ours = self._task.uncancel() <= self._cancelling
        return is_ours and kind is asyncio.CancelledError

    def _begin_to_watch(self) -> None:
        self._watch = asyncio.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        await self._left()
        self._has_cancelled = True
        self._task.cancel()


async def unless_gone(request: ApiRequest, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`; if the client disconnects first, cancels it and raises `ClientGone`.

    The request's body must have been read, so that only `http.disconnect` is still to come.
    """

    async def left() -> None:
        while (await request.http.receive())["type"] != "http.disconnect":
            pass

    return await unless_left(work, left)


async def unless_left(work: Coroutine[Any, Any, T], left: Left) -> T:
    """Awaits `work`; cancels it and raises `ClientGone` once `left` returns."""
    async with WhileClientConnected(left):
        return await work
    raise ClientGone
