"""The HTTP client; imported only where an upstream is configured."""

from llm_backend.backends.upstream.http.upstream import Upstream

__all__ = ["Upstream"]
