"""Cancellation of work when the client disconnects, also while its body is still uploading."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive

from llm_backend.contract.client_disconnect import CancelOnDisconnect


class RequestBodyStream:
    """The client's upload; until it has ended, no other reader may listen to the client."""

    def __init__(self, http: HttpRequest) -> None:
        self._http = http
        self.is_disconnected = False
        self._ended: asyncio.Event | None = None  # None: the body was read before

    def begin(self) -> AsyncIterator[bytes]:
        """Returns the body's chunks as they arrive."""
        self._ended = asyncio.Event()
        return self._pieces(self._ended)

    async def wait_for_end(self) -> None:
        """Returns once no more bytes of the body are read."""
        if self._ended is not None:
            await self._ended.wait()

    async def _pieces(self, ended: asyncio.Event) -> AsyncIterator[bytes]:
        try:
            async for piece in self._http.stream():
                if piece:
                    yield piece
        except ClientDisconnect:
            self.is_disconnected = True
            raise
        finally:
            ended.set()


class CancelOnRelayDisconnect(CancelOnDisconnect):
    """Cancels a block when the client disconnects, also one that reads the client's body."""

    def __init__(self, receive: Receive, upload: RequestBodyStream) -> None:
        # Not a method: a reference cycle would keep the request in memory until the garbage
        # collector runs.
        super().__init__(partial(_wait_for_disconnect, receive, upload))
        self._upload = upload

    @property
    def is_disconnected(self) -> bool:
        """True if the client disconnected before the block's end or before its body's end."""
        return super().is_disconnected or self._upload.is_disconnected


async def _wait_for_disconnect(receive: Receive, upload: RequestBodyStream) -> None:
    await upload.wait_for_end()
    while not upload.is_disconnected:
        if (await receive())["type"] == "http.disconnect":
            return
