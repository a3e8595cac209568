"""What is done only as long as the client is there, also while its body is still on its way up."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive

__all__ = ["Upload", "WhileConnected"]

WATCHED_AFTER_S = 0.05


class Upload:
    """The client's body on its way up; until it has ended, only it may listen to the client."""

    def __init__(self, http: HttpRequest) -> None:
        self._http = http
        self.has_left = False
        self.ended = asyncio.Event()
        self.ended.set()

    def begin(self) -> AsyncIterator[bytes]:
        """The body's pieces as they come."""
        self.ended.clear()
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._http.stream():
                if piece:
                    yield piece
        except ClientDisconnect:
            self.has_left = True
            raise
        finally:
            self.ended.set()


class WhileConnected:
    """Runs a block while the client is there; when it leaves, the block is cancelled and ends.

    Watching costs a task, and most blocks end soon: it begins only with one that lasts. The
    cancellation is taken back at the block's end as `asyncio.timeout` does, and one that came from
    elsewhere passes through.
    """

    def __init__(self, receive: Receive, upload: Upload) -> None:
        self._receive = receive
        self._upload = upload
        self.has_left = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._has_cancelled = False
        self._watch: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._beginning = loop.call_later(WATCHED_AFTER_S, self._begin_to_watch)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._beginning.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self.has_left = self.has_left or self._upload.has_left
        if not self._has_cancelled:
            return False
        is_ours = self._task.uncancel() <= self._cancelling
        return is_ours and kind is asyncio.CancelledError

    def _begin_to_watch(self) -> None:
        self._watch = asyncio.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        await self._upload.ended.wait()
        while not self._upload.has_left:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
        self.has_left = self._has_cancelled = True
        self._task.cancel()
