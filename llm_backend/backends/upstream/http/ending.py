"""Ends of answers: a lost connection, or an answer that is closed before it was read."""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler


class AbortSignal:
    """Raises an error in the reader of an answer whose connection is lost.

    The HTTP client raises none if it closes the connection itself because of invalid data: a
    malformed chunk within a body would leave the reader waiting for ever.
    """

    def __init__(self) -> None:
        self._read: dict[ResponseHandler, aiohttp.StreamReader] = {}

    def watch(self, connection: ResponseHandler, body: aiohttp.StreamReader) -> None:
        """Registers the body that is now read from this connection."""
        closed = connection.closed
        if closed is None:
            return  # it is closed already, and the HTTP client has raised the error
        if connection not in self._read:
            closed.add_done_callback(lambda done: self._abort(connection, done))
        self._read[connection] = body

    def _abort(self, connection: ResponseHandler, closed: asyncio.Future[None]) -> None:
        body = self._read.pop(connection)
        closed.exception()  # marks the error as retrieved
        if not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("The answer's body is malformed."))


def abort_response(answer: aiohttp.ClientResponse) -> None:
    """Closes the answer to a WebSocket's handshake, and aborts its connection immediately, without
    a flush or a TLS shutdown."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()
    answer.close()


def once(close: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that calls `close` the first time only."""
    is_closed = False

    def close_once() -> None:
        nonlocal is_closed
        if not is_closed:
            is_closed = True
            close()

    return close_once
