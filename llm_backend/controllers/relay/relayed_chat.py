"""Relay of chats to an upstream: the answer is passed on unchanged, observed and stored."""

import logging
import time
import uuid
from collections.abc import Awaitable

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.chat_observer import ChatObserver
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonMapping, JsonObject

log = logging.getLogger(__name__)

_UNIX_SECONDS_LIMIT = 1 << 40  # unix seconds: a larger number has another unit


async def relay_chat(
    services: Services, request: ApiRequest, *, to: Destination | None = None
) -> Response:
    """Relays `POST /chat/completions`; `ChatRecorder.store_relayed` stores the chat."""
    if not services.chat_recorder.should_store_relayed(request.body):
        return await relay(services, request, to=to)
    observer = ChatObserver()

    def store() -> Awaitable[None] | None:
        if observer.is_overlong:
            log.warning("chat_too_long_to_store", extra={"request_id": request.request_id})
            return None
        return services.chat_recorder.store_relayed(
            request.body,
            _ObservedAnswer(observer, request.body),
            size_bytes=len(request.raw_body) + observer.fed_bytes,
        )

    return await relay(services, request, to=to, observe=observer.feed, finish=store)


class _ObservedAnswer:
    """Answer of an upstream, which is parsed by the call of `completion`."""

    __slots__ = ("_body", "_observer")

    def __init__(self, observer: ChatObserver, body: JsonMapping) -> None:
        self._observer = observer
        self._body = body

    @property
    def is_complete(self) -> bool:
        """True if the whole answer was parsed and it is not an error."""
        return self._observer.is_complete

    def completion(self) -> JsonObject | None:
        """Returns the completion, or the part received; None for an upstream's error."""
        completion = self._observer.completion()
        return None if completion is None else _with_required_fields(completion, self._body)


def _with_required_fields(completion: JsonMapping, body: JsonMapping) -> JsonObject:
    """Returns the completion with the fields that the store requires, in place of missing or
    invalid ones."""
    complete = dict(completion)
    if not isinstance(complete.get("id"), str) or not complete["id"]:
        complete["id"] = f"chatcmpl-{uuid.uuid4().hex}"
    if not isinstance(complete.get("model"), str):
        complete["model"] = body["model"]
    if not _is_time(complete.get("created")):
        complete["created"] = int(time.time())
    return complete


def _is_time(value: object) -> bool:
    """True if the value can be a time in unix seconds."""
    return (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _UNIX_SECONDS_LIMIT
    )
