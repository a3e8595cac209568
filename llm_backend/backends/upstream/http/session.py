"""aiohttp's connection pool, timeouts and session for an upstream, and its configured headers."""

import aiohttp

from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.backends.upstream.http.ending import abort_response
from llm_backend.backends.upstream.http.translation import redirect_error

_ANTHROPIC_VERSION = "2023-06-01"
_NO_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
HEADER_BYTES = 64 * 1024
HEADER_COUNT = 256
# Below the 5 s after which uvicorn and Node close an idle connection, so that no request is sent
# on a connection that is being closed.
_KEEPALIVE_S = 4.0
_EXTRA_CONNECTIONS = 3  # of an image server: progress, interruption, list of models


def new_connector(config: UpstreamConfig) -> aiohttp.BaseConnector:
    """Creates a connection pool; the caller closes it."""
    limit = config.concurrency + (_EXTRA_CONNECTIONS if config.is_image_server else 0)
    return aiohttp.TCPConnector(limit=limit, keepalive_timeout=_KEEPALIVE_S)


def timeouts_of(config: UpstreamConfig) -> aiohttp.ClientTimeout:
    """Returns an upstream's timeouts as aiohttp's type."""
    return aiohttp.ClientTimeout(
        total=config.total_timeout_s,
        connect=config.connect_timeout_s,
        sock_read=config.answer_timeout_s,
    )


def new_socket_session(
    config: UpstreamConfig, connector: aiohttp.BaseConnector
) -> aiohttp.ClientSession:
    """Creates a session for WebSockets that adds no headers by itself. A redirected handshake
    raises `UpstreamFailed`: aiohttp would send the upstream's credentials to the new address."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(
        connector=connector,
        connector_owner=False,
        trace_configs=[trace],
        timeout=timeouts_of(config),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,  # a proxy or netrc of the environment would change address or credentials
        skip_auto_headers=_NO_AUTOMATIC_HEADERS,
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        max_headers=HEADER_COUNT,
    )


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    answer = redirect.response
    abort_response(answer)
    raise redirect_error(answer.url, answer.status, answer.headers.get("location", ""))


def configured_headers(config: UpstreamConfig) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an upstream's settings and the one with its API key."""
    own = [(name.lower().encode(), value.encode()) for name, value in config.headers]
    if config.kind is UpstreamKind.ANTHROPIC:
        version = config.api_version or _ANTHROPIC_VERSION
        own.append((b"anthropic-version", version.encode()))
    if config.api_key is None:
        return own
    if config.kind is UpstreamKind.ANTHROPIC:
        return [*own, (b"x-api-key", config.api_key.encode())]
    if config.kind is UpstreamKind.AZURE:
        return [*own, (b"api-key", config.api_key.encode())]
    return [*own, (b"authorization", b"Bearer " + config.api_key.encode())]
