"""What is done only as long as the client is there."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from llm_backend.contract.request import ApiRequest
from llm_backend.errors import ClientGone

__all__ = ["Left", "WhileClientConnected", "unless_gone", "unless_left"]

T = TypeVar("T")

Left = Callable[[], Coroutine[Any, Any, object]]
"""Returns when the client has left; it is asked anew by each who wants to know."""

WATCHED_AFTER_S = 0.05  # a block that is over before is none worth cutting short


class WhileClientConnected:
    """Runs a block while the client is there; when it leaves, the block is cancelled and ends.

    The block is no task of its own: what cancels it, the client's leaving or anything else, reaches
    the very await that it is at, so that nothing is got and not given back. The cancellation is
    taken back at the block's end as `asyncio.timeout` does, and one that came from elsewhere passes
    through. Watching costs a task, and most blocks end soon: it begins only with one that lasts.
    """

    def __init__(self, left: Left) -> None:
        self._left = left
        self._has_cancelled = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def has_left(self) -> bool:
        """Whether the client left before the block's end."""
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
            self._watch = None  # it holds this: neither is to wait for the collector
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
    """What `work` gives, unless the client leaves first: then `work` is cancelled, `ClientGone`.

    The request's body must have been read: nothing but the client's leaving is still to come.
    """

    async def left() -> None:
        while (await request.http.receive())["type"] != "http.disconnect":
            pass

    return await unless_left(work, left)


async def unless_left(work: Coroutine[Any, Any, T], left: Left) -> T:
    """The same for a client of whose leaving `left` tells."""
    async with WhileClientConnected(left):
        return await work
    raise ClientGone
