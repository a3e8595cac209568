"""WebSockets: in front of the document, which knows none."""

from llm_backend.controllers.sockets.entrance import Sockets

__all__ = ["Sockets"]
