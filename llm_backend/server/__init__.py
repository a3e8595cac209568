"""The application on a socket: one process or several, TLS, HTTP as it is spoken."""

from llm_backend.server.serving import CannotServe, serve

__all__ = ["CannotServe", "serve"]
