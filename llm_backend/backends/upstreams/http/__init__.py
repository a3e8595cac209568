"""The HTTP client; imported only where an upstream is configured."""

from llm_backend.backends.upstreams.http.upstream import Upstream

__all__ = ["Upstream"]
