"""A chat that the upstream answers: relayed as it is, read beside the stream, remembered."""

import logging
import time
import uuid

from starlette.responses import Response

from llm_backend.contract.request import Request
from llm_backend.controllers.chat_observer import ChatObserver
from llm_backend.controllers.relay import Destination, relay
from llm_backend.controllers.services import Services

__all__ = ["relay_chat"]

log = logging.getLogger(__name__)


async def relay_chat(services: Services, request: Request, *, to: Destination) -> Response:
    """Relays `POST /chat/completions`; a complete answer is stored before its last bytes go out."""
    if not services.memory.wants_relayed(request.body):
        return await relay(services, request, to=to)
    observer = ChatObserver()

    async def remember() -> None:
        if observer.is_overlong:
            log.warning("chat_too_long_to_store", extra={"request_id": request.request_id})
            return
        completion = observer.completion()
        if completion is None:
            return  # an error, which the client got as it was
        named = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.body["model"],
            **completion,
        }
        await services.memory.remember(request.body, named, complete=observer.is_complete)

    return await relay(services, request, to=to, observe=observer.feed, finish=remember)
