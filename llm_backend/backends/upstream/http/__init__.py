"""The HTTP client; imported only where an upstream is configured.

upstream.py      requests to one server
client.py        HTTP/1.1 on pooled connections
session.py       connections, and the upstream's key as a header
body.py          request bodies and deadlines
ending.py        broken and closed answers
websocket.py     WebSockets
translation.py   client errors as API errors
"""

from llm_backend.backends.upstream.http.upstream import Upstream

__all__ = ["Upstream"]
