"""A client of realtime sessions that holds each event to the document."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import jsonschema_rs
from websockets.sync.client import ClientConnection, connect

from llm_backend.contract import load_document
from tests.serving import Served

__all__ = ["LONG_CALL", "Events", "RealtimeClient", "message", "opened", "parts", "socket_url"]

Events = Sequence[dict[str, Any]]

LONG_CALL = {
    "tools": [
        {
            "type": "function",
            "name": "count",
            "parameters": {
                "type": "object",
                "properties": {
                    "numbers": {
                        "type": "array", "items": {"enum": [3, 5, 7]}, "minItems": 300,
                        "maxItems": 300,
                    }
                },
                "required": ["numbers"],
            },
        }
    ],
    "tool_choice": "required",
}  # fmt: skip
"""Fields of a response that takes some seconds."""


def socket_url(server: Served, query: str = "model=builtin") -> str:
    """Returns the address of a session."""
    return server.base_url.replace("http", "ws") + f"/realtime?{query}"


def message(text: str, **more: Any) -> dict[str, Any]:
    """Returns the event that adds a message of the user."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content, **more}
    return {"type": "conversation.item.create", "item": item}


def parts(events: Events, type: str, field: str = "delta") -> str:
    """Joins a field of all events of a type."""
    return "".join(event[field] for event in events if event["type"] == type)


class RealtimeClient:
    """An open session."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, *events: dict[str, Any]) -> None:
        """Sends events."""
        for event in events:
            self.socket.send(json.dumps(event))

    def receive(self) -> dict[str, Any]:
        """Returns the next event."""
        event: dict[str, Any] = json.loads(self.socket.recv(timeout=60))
        _validator(event["type"])(event)
        return event

    def until(self, *types: str) -> list[dict[str, Any]]:
        """Returns the events up to the first of one of these types."""
        return self.until_true(lambda event: event["type"] in types)

    def until_true(self, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Returns the events up to the first that fits."""
        events = [self.receive()]
        while not is_last(events[-1]):
            events.append(self.receive())
        return events

    def answer(self, *events: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        """Sends events, asks for a response, and returns all events up to its end."""
        self.send(*events, {"type": "response.create", "response": fields})
        return self.until("response.done")


@contextlib.contextmanager
def opened(server: Served, query: str = "model=builtin", **more: Any) -> Iterator[RealtimeClient]:
    """A session whose first event has been read."""
    with connect(socket_url(server, query), **more) as socket:
        client = RealtimeClient(socket)
        assert client.receive()["type"] == "session.created"
        yield client


@cache
def _validator(type: str) -> Callable[[Any], None]:
    document = _document()
    names = [
        one["$ref"].rsplit("/", 1)[1]
        for one in document["components"]["schemas"]["RealtimeServerEvent"]["anyOf"]
    ]
    schemas = document["components"]["schemas"]
    name = next(one for one in names if schemas[one]["properties"]["type"]["enum"] == [type])
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema_rs.validator_for(schema).validate


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(load_document().text())
    return document
