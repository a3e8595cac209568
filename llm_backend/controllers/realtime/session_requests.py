"""Requests of a session to this server's own operations, with the key of the session."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

from llm_backend.controllers.internal_requests import InternalAnswer, open_exchange
from llm_backend.json_types import JsonMapping


class InternalRequestFailed(Exception):
    """Raised for an answer with an error; `error` is its error object."""

    def __init__(self, error: JsonMapping) -> None:
        super().__init__(error.get("message"))
        self.error = error


class SessionRequests:
    """Sends requests to `app`. `find_caller` returns the present caller; it raises `Unauthorized`
    once the key is no longer valid."""

    def __init__(self, app: ASGIApp, find_caller: Callable[[], Any]) -> None:
        self._app = app
        self._find_caller = find_caller

    @asynccontextmanager
    async def open(
        self, path: str, body: bytes, *, content_type: bytes = b"application/json"
    ) -> AsyncIterator[InternalAnswer]:
        """Opens an exchange; leaving its context cancels the request. Raises
        `InternalRequestFailed`, and `Unauthorized`."""
        state = {"caller": self._find_caller()}
        exchange = open_exchange(
            self._app, f"/v1{path}", (), body, content_type=content_type, state=state
        )
        async with exchange as answer:
            if answer.status >= 400:
                raise InternalRequestFailed(await answer.error())
            yield answer
