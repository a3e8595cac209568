"""WebSockets: in front of the document, which knows none."""

from llm_backend.controllers.websockets.entrance import WebSocketEndpoints

__all__ = ["WebSocketEndpoints"]
