"""Sessions of the HTTP client (aiohttp) for an upstream, and this server's own headers."""

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.backends.upstream.http.body import BODY_TIMEOUT
from llm_backend.backends.upstream.http.ending import abort
from llm_backend.backends.upstream.http.translation import redirect_error

_NO_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_HEADER_BYTES = 64 * 1024
_HEADER_COUNT = 256
# Below the 5 s after which uvicorn and Node close an idle connection, so that no request is sent
# on a connection that is being closed.
_KEEPALIVE_S = 4.0


def new_session(config: UpstreamConfig) -> aiohttp.ClientSession:
    """Creates a connection pool that adds no headers by itself; the caller closes it."""
    connector = _Connector(limit=config.concurrency, keepalive_timeout=_KEEPALIVE_S)
    return _session(config, connector)


def new_socket_session(
    config: UpstreamConfig, session: aiohttp.ClientSession
) -> aiohttp.ClientSession:
    """Creates a session for WebSockets that shares the connections of `session`. The HTTP client
    would follow a redirect of the handshake, with the upstream's credentials: here a redirect
    raises `UpstreamFailed`."""
    watching = aiohttp.TraceConfig()
    watching.on_request_redirect.append(_refuse_redirect)
    return _session(config, session.connector, owns_connector=False, watching=watching)


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    abort(redirect.response)
    raise redirect_error(redirect.response)


def _session(
    config: UpstreamConfig,
    connector: aiohttp.BaseConnector | None,
    *,
    owns_connector: bool = True,
    watching: aiohttp.TraceConfig | None = None,
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        connector_owner=owns_connector,
        trace_configs=None if watching is None else [watching],
        timeout=aiohttp.ClientTimeout(
            total=config.total_timeout_s,
            connect=config.connect_timeout_s,
            sock_read=config.first_byte_timeout_s or config.idle_timeout_s,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,  # a proxy or netrc of the environment would change address or credentials
        skip_auto_headers=_NO_AUTOMATIC_HEADERS,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        max_headers=_HEADER_COUNT,
    )


def own_headers(config: UpstreamConfig) -> list[tuple[str, str]]:
    """Returns the headers from the upstream's settings, with its API key."""
    own = [(name.lower(), value) for name, value in config.headers]
    if config.api_key is None:
        return own
    if config.kind is UpstreamKind.AZURE:
        return [*own, ("api-key", config.api_key)]
    return [*own, ("authorization", f"Bearer {config.api_key}")]


class _Connector(aiohttp.TCPConnector):
    """Connector that starts the request's `BodyTimeout` when the connection exists, for which the
    HTTP client has no callback."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 # the client's own word
    ) -> Connection:
        body_timeout = BODY_TIMEOUT.get()
        body_timeout.pause()
        connection = await super().connect(req, traces, timeout)
        body_timeout.restart()
        return connection
