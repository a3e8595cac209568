"""HTTP server: the application on a socket, in one process or several, with TLS."""

from llm_backend.server.serving import CannotServe, serve

__all__ = ["CannotServe", "serve"]
