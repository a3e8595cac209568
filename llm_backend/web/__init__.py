"""What people see: the chat page at `/` and Swagger UI at `/docs`, from files of this machine."""

from llm_backend.web.pages import WebPages

__all__ = ["WebPages"]
