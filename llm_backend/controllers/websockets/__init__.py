"""WebSocket endpoints, which the OpenAPI document does not describe."""

from llm_backend.controllers.websockets.endpoints import WebSocketEndpoints

__all__ = ["WebSocketEndpoints"]
