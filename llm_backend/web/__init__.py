"""What people see: the chat page at `/` and Swagger UI at `/docs`, from files of this machine."""

from llm_backend.web.pages import PAGES, WebPages

__all__ = ["PAGES", "WebPages"]
