"""Web pages: the chat page at `/` and Swagger UI at `/docs`, served from local files.

pages.py  the ASGI middleware that serves them
"""

from llm_backend.web.pages import PAGES, WebPages

__all__ = ["PAGES", "WebPages"]
