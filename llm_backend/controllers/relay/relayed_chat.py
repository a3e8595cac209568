"""A chat that the upstream answers: relayed as it is, read beside the stream, remembered."""

import logging
import time
import uuid
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.chat_observer import ChatObserver
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.services import Services

__all__ = ["relay_chat"]

log = logging.getLogger(__name__)

_END_OF_TIME = 1 << 40  # in unix seconds: beyond it is what is counted in something else


async def relay_chat(
    services: Services, request: ApiRequest, *, to: Destination | None = None
) -> Response:
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
            _with_required_fields(completion, request.body),
            complete=observer.is_complete,
            size_bytes=len(request.raw_body) + observer.fed_bytes,
        )

    return await relay(services, request, to=to, observe=observer.feed, finish=remember)


def _with_required_fields(completion: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The completion with what none is stored without, where its upstream leaves that out or has
    something else in its place."""
    named = dict(completion)
    if not isinstance(named.get("id"), str) or not named["id"]:
        named["id"] = f"chatcmpl-{uuid.uuid4().hex}"
    if not isinstance(named.get("model"), str):
        named["model"] = body["model"]
    if not _is_time(named.get("created")):
        named["created"] = int(time.time())
    return named


def _is_time(value: object) -> bool:
    """Whether it can be the unix seconds of a moment."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _END_OF_TIME
