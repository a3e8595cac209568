"""How the HTTP client is set up for an upstream, and what is sent of ours."""

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from llm_backend.backends.upstreams.config import Kind, UpstreamConfig
from llm_backend.backends.upstreams.http.body import PATIENCE

__all__ = ["new_session", "own_headers"]

_NO_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_HEADER_BYTES = 64 * 1024
_HEADER_COUNT = 256
# Below the 5 s after which uvicorn and Node close an idle connection: a request never meets one
# that is being closed.
_KEEPALIVE_S = 4.0


def new_session(config: UpstreamConfig) -> aiohttp.ClientSession:
    """A pool of connections that sends nothing by itself; whoever asks closes it."""
    return aiohttp.ClientSession(
        connector=_Connector(limit=config.concurrency, keepalive_timeout=_KEEPALIVE_S),
        timeout=aiohttp.ClientTimeout(
            total=config.total_timeout_s,
            connect=config.connect_timeout_s,
            sock_read=config.first_byte_timeout_s or config.idle_timeout_s,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,  # a proxy or netrc of the environment would change what is sent where
        skip_auto_headers=_NO_AUTOMATIC_HEADERS,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        max_headers=_HEADER_COUNT,
    )


def own_headers(config: UpstreamConfig) -> list[tuple[str, str]]:
    """The headers that the settings give an upstream, its key among them."""
    own = [(name.lower(), value) for name, value in config.headers]
    if config.api_key is None:
        return own
    if config.kind is Kind.AZURE:
        return [*own, ("api-key", config.api_key)]
    return [*own, ("authorization", f"Bearer {config.api_key}")]


class _Connector(aiohttp.TCPConnector):
    """Tells who asks for a connection when there is one: the client does so to nobody."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 # the client's own word
    ) -> Connection:
        patience = PATIENCE.get()
        patience.wait()
        connection = await super().connect(req, traces, timeout)
        patience.begin()
        return connection
