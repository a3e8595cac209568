"""Sends the lines of batches: each is a request to this server's own application."""

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp

from llm_backend.controllers.internal_requests import open_exchange
from llm_backend.errors import Internal


@dataclass(frozen=True, kw_only=True)
class LineAnswer:
    """A response with its whole body."""

    status: int
    request_id: str
    body: bytes


class LineSender:
    """Sends the lines of batches to an ASGI application, for a caller that is authenticated
    already, and reads whole answers. Rate and concurrency limits do not hold for them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def post(self, path: str, body: bytes, caller: Any) -> LineAnswer:
        """Posts a JSON body and returns the response. Raises `Internal` if it breaks off, which
        only a bug of the application can cause."""
        state = {"caller": caller, "is_batch": True}
        async with open_exchange(self._app, path, (), body, state=state) as answer:
            pieces = [piece async for piece in answer.pieces]
            if not answer.is_complete():
                raise Internal("The request failed without saying why.")
        return LineAnswer(
            status=answer.status,
            request_id=Headers(raw=list(answer.headers)).get("x-request-id", ""),
            body=b"".join(pieces),
        )
