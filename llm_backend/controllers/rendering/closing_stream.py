"""Streamed answers that close their generator at their end; bytes as a stream."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


async def one_piece(data: bytes) -> AsyncGenerator[bytes, None]:
    """Yields bytes as a stream of one piece."""
    yield data


async def prepend(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields bytes that were read before, and then the rest of their stream."""
    yield first
    async for piece in rest:
        yield piece


class ClosingStream(StreamingResponse):
    """Streaming response of `body`, which reads `source`; both are closed at its end, also if the
    client disconnects."""

    body_iterator: AsyncGenerator[bytes, None]

    def __init__(
        self,
        source: AsyncGenerator[Any, None],
        body: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer."""
        # A disconnect during a send leaves both generators suspended.
        async with aclosing(self._source), aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)
