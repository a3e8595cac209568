"""Dispatches internal requests to this server's own ASGI application, in process: the same routing,
checks, errors and answers as for clients.
"""

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from llm_backend.controllers.internal.internal_request import body_channel, json_post


@dataclass(frozen=True, kw_only=True)
class DispatchedAnswer:
    """A response with its whole body."""

    status: int
    request_id: str
    body: bytes


class Dispatch:
    """Sends requests to an ASGI application, for a caller that is authenticated already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def post(self, path: str, body: bytes, caller: Any) -> DispatchedAnswer:
        """Posts a JSON body and returns the response. Exceptions of the application propagate."""
        scope = json_post(path, body, state={"caller": caller, "is_batch": True})
        exchange = _DispatchExchange()
        await self._app(scope, body_channel(body), exchange.send)
        return exchange.answer()


class _DispatchExchange:
    def __init__(self) -> None:
        self._start: Message = {}
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))

    def answer(self) -> DispatchedAnswer:
        return DispatchedAnswer(
            status=self._start["status"],
            request_id=Headers(raw=self._start["headers"]).get("x-request-id", ""),
            body=b"".join(self._parts),
        )
