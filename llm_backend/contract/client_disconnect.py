"""Cancels work when its client disconnects."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from llm_backend.contract.request import ApiRequest
from llm_backend.errors import ClientGone

T = TypeVar("T")

WaitForDisconnect = Callable[[], Coroutine[Any, Any, object]]
"""Creates a coroutine that returns when the client has disconnected."""

WATCH_DELAY_S = 0.05  # a shorter block is not worth cancelling


class CancelOnDisconnect:
    """Context manager that cancels its block when the client disconnects.

    The block is not a task of its own: every cancellation, from the disconnect or from elsewhere,
    reaches the await that the block is at, so that no acquired resource leaks. At its end the block
    undoes its own cancellation (`Task.uncancel`, as in `asyncio.timeout`); a cancellation from
    elsewhere passes through. Watching takes a task, which is created after `WATCH_DELAY_S`.
    """

    def __init__(self, wait_for_disconnect: WaitForDisconnect) -> None:
        self._wait_for_disconnect = wait_for_disconnect
        self._has_cancelled = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_disconnected(self) -> bool:
        """True if the client disconnected before the block's end."""
        return self._has_cancelled

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling_before = task.cancelling()
        loop = asyncio.get_running_loop()
        self._watch_timer = loop.call_later(WATCH_DELAY_S, self._start_watch)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watch_timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # a reference cycle would wait for the garbage collector
        if not self._has_cancelled:
            return False
        is_ours = self._task.uncancel() <= self._cancelling_before
        return is_ours and kind is asyncio.CancelledError

    def _start_watch(self) -> None:
        self._watch = asyncio.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        await self._wait_for_disconnect()
        self._has_cancelled = True
        self._task.cancel()


async def cancel_on_disconnect(request: ApiRequest, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`; if the client disconnects first, cancels it and raises `ClientGone`.

    The request's body must have been read, so that only `http.disconnect` is still to come.
    """

    async def wait_for_disconnect() -> None:
        while (await request.http.receive())["type"] != "http.disconnect":
            pass

    return await run_until_disconnect(work, wait_for_disconnect)


async def run_until_disconnect(
    work: Coroutine[Any, Any, T], wait_for_disconnect: WaitForDisconnect
) -> T:
    """Awaits `work`; cancels it and raises `ClientGone` once `wait_for_disconnect` returns."""
    async with CancelOnDisconnect(wait_for_disconnect):
        return await work
    raise ClientGone
