"""Requests of a session to this server's own operations, with the key of the session."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.types import ASGIApp

from llm_backend.controllers.internal_requests import InnerAnswer, open_exchange


class InnerRequests:
    """Sends requests to `app`. `find_caller` returns the present caller; it raises `Unauthorized`
    once the key is no longer valid."""

    def __init__(self, app: ASGIApp, find_caller: Callable[[], Any]) -> None:
        self._app = app
        self._find_caller = find_caller

    def open(
        self, path: str, body: bytes, *, content_type: bytes = b"application/json"
    ) -> AbstractAsyncContextManager[InnerAnswer]:
        """Opens an exchange; leaving its context cancels the request."""
        state = {"caller": self._find_caller()}
        return open_exchange(
            self._app, f"/v1{path}", (), body, content_type=content_type, state=state
        )
