"""How an answer ends: with its connection, or because nobody reads it any more."""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler

__all__ = ["AbortSignal", "cut", "once"]


class AbortSignal:
    """Tells who reads an answer that its connection is gone.

    The HTTP client does so itself, but not where it closes the connection because of what came:
    garbage in the middle of a body would leave the reader waiting for ever.
    """

    def __init__(self) -> None:
        self._read: dict[ResponseHandler, aiohttp.StreamReader] = {}

    def watch(self, connection: ResponseHandler, body: aiohttp.StreamReader) -> None:
        """This body is what is read from the connection now."""
        closed = connection.closed
        if closed is None:
            return  # it is gone already, and the client has said so
        if connection not in self._read:
            closed.add_done_callback(lambda done: self._gone(connection, done))
        self._read[connection] = body

    def _gone(self, connection: ResponseHandler, closed: asyncio.Future[None]) -> None:
        body = self._read.pop(connection)
        closed.exception()  # it has been asked for: nobody else does
        if not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("The answer's body is malformed."))


def cut(answer: aiohttp.ClientResponse) -> None:
    """Ends an answer: an unread one loses its connection now, without flushing or farewell."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()
    answer.close()


def once(close: Callable[[], None]) -> Callable[[], None]:
    """What closes, however often it is called."""
    is_closed = False

    def close_once() -> None:
        nonlocal is_closed
        if not is_closed:
            is_closed = True
            close()

    return close_once
