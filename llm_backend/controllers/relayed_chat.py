"""A chat that the upstream answers: relayed as it is, read beside the stream, remembered."""

import logging
import time
import uuid
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.responses import Response

from llm_backend.contract.request import Request
from llm_backend.controllers.chat_observer import ChatObserver
from llm_backend.controllers.relay import Destination, relay
from llm_backend.controllers.services import Services

__all__ = ["relay_chat"]

log = logging.getLogger(__name__)


async def relay_chat(services: Services, request: Request, *, to: Destination) -> Response:
    """Relays `POST /chat/completions`; it is kept before its last bytes go out, or behind them."""
    if not services.memory.wants_relayed(request.body):
        return await relay(services, request, to=to)
    observer = ChatObserver()

    def remember() -> Awaitable[None] | None:
        if observer.is_overlong:
            log.warning("chat_too_long_to_store", extra={"request_id": request.request_id})
            return None
        completion = observer.completion()
        if completion is None:
            return None  # an error, which the client got as it was
        return services.memory.remember_relayed(
            request.body,
            _named(completion, request.body),
            complete=observer.is_complete,
            size_bytes=len(request.raw_body) + observer.fed_bytes,
        )

    return await relay(services, request, to=to, observe=observer.feed, finish=remember)


def _named(completion: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The completion with what its upstream may leave out, and none is stored without."""
    named = {"created": int(time.time()), "model": body["model"], **completion}
    return named if "id" in named else {"id": f"chatcmpl-{uuid.uuid4().hex}", **named}
