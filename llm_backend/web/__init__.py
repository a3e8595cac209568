"""Web pages: the chat page at `/` and Swagger UI at `/docs`, served from local files."""

from llm_backend.web.pages import PAGES, WebPages

__all__ = ["PAGES", "WebPages"]
