"""ASGI middleware of detached chats, which are not ended by their clients' disconnects."""

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.contract.application.error_responses import send_error_response
from llm_backend.contract.request_validation import ON_CHECKED
from llm_backend.controllers.services.detached_chats import (
    HEADER,
    DetachedChat,
    DetachedChats,
    still_answered_error,
)
from llm_backend.controllers.services.detached_peers import DetachedPeers
from llm_backend.errors import ApiError
from llm_backend.json_types import JsonMapping


class DetachedAnswers:
    """ASGI middleware: requests with the header `x-llm-backend-detached` never notice that their
    client disconnects; what is sent to it then is only kept for followers. `wait_stored` waits for
    the chats that are being stored in the background: a cancelled chat is listed as running until
    it is stored."""

    def __init__(
        self,
        app: ASGIApp,
        chats: DetachedChats,
        peers: DetachedPeers,
        wait_stored: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._chats = chats
        self._peers = peers
        self._wait_stored = wait_stored

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; refuses one that cannot be detached."""
        id = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        if id is None:
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            chat = self._chats.begin(id, scope["path"], state)
        except ApiError as error:
            await send_error_response(scope, send, error)
            return
        try:
            state[ON_CHECKED] = partial(self._add, chat)
            await self._app(scope, chat.receive_from(receive), chat.send_to(send))
            if chat.is_cancelled:
                await self._wait_stored()
        finally:
            self._chats.end(chat)
            self._peers.release(chat)

    async def _add(self, chat: DetachedChat, request: JsonMapping) -> None:
        """Adds the chat, unless another process has one of its id."""
        self._chats.add(chat, request)
        if chat.caller and not await self._peers.claim(chat, chat.caller.project_id):
            self._chats.end(chat)
            raise still_answered_error(chat.id)
