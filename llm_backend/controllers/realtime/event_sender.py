"""Events to the client of a realtime session, with their ids."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from typing import Protocol

from llm_backend import exact_json
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import is_request_large, offload


class Client(Protocol):
    """The client's side of a WebSocket."""

    def messages(self) -> AsyncGenerator[str | bytes, None]: ...
    async def send(self, message: str | bytes) -> None: ...


class EventSender:
    """Sends events in order; waits while the client is slow to read them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = asyncio.Lock()

    async def send(self, *events: JsonMapping) -> None:
        """Sends events, each with an id, and no others between them. Raises `ClientGone`."""
        async with self._lock:
            for event in events:
                text = await offload(_encode, event)
                await _let_others_run()
                await self._client.send(text)
                await _let_others_run()

    async def send_error(self, error: ApiError, client_event_id: str | None = None) -> None:
        """Sends an `error` event; `client_event_id` is the id of the event that caused it."""
        await self.send(error_event(error_body(error)["error"], client_event_id))


async def _let_others_run() -> None:
    """Lets other requests run between two steps that each take long for a large event."""
    if is_request_large():
        await asyncio.sleep(0)


def _encode(event: JsonMapping) -> str:
    return exact_json.dumps(event_with_id(event)).decode()


def event_with_id(event: JsonMapping) -> JsonObject:
    """Returns an event with a new id."""
    return {**event, "event_id": f"event_{uuid.uuid4().hex[:24]}"}


def item_events(item: JsonMapping, previous_item_id: str | None) -> list[JsonObject]:
    """Returns the events of an item that is complete when it is added to the conversation."""
    return [
        {"type": f"conversation.item.{kind}", "previous_item_id": previous_item_id, "item": item}
        for kind in ("added", "done")
    ]


def error_event(error: JsonMapping, client_event_id: str | None) -> JsonObject:
    """Returns the `error` event of an error object."""
    fields = {name: error.get(name) for name in ("code", "param")}
    cause = {"type": error.get("type") or "server_error", "message": error.get("message") or ""}
    return {"type": "error", "error": {**cause, **fields, "event_id": client_event_id}}
