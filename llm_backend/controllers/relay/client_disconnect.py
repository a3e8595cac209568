"""What is done only as long as the client is there, also while its body is still on its way up."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive

from llm_backend.contract.client_disconnect import WhileClientConnected

__all__ = ["UploadProgress", "WhileConnected"]


class UploadProgress:
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


class WhileConnected(WhileClientConnected):
    """Runs a block while the client is there, also one that reads its body."""

    def __init__(self, receive: Receive, upload: UploadProgress) -> None:
        # Not a method of its own: what refers to itself is kept until the collector finds it, and
        # with it all of its request.
        super().__init__(partial(_wait_for_disconnect, receive, upload))
        self._upload = upload

    @property
    def has_left(self) -> bool:
        """Whether the client left before the block's end, or before its body's."""
        return super().has_left or self._upload.has_left


async def _wait_for_disconnect(receive: Receive, upload: UploadProgress) -> None:
    await upload.ended.wait()
    while not upload.has_left:
        if (await receive())["type"] == "http.disconnect":
            return
