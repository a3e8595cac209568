"""Cross-site request guard: pages of other sites cannot use this server through a browser.

A browser sends the requests of any page (forms, images, scripts, `no-cors` requests, WebSockets),
and only hides the answers from the page. The server would still run such a request: with the
operator's keys if it is relayed, and with all rights if the server is open to all callers.
"""

import logging
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.contract.application.error_responses import send_error_response
from llm_backend.errors import Forbidden

log = logging.getLogger(__name__)

_READ_HEADERS = frozenset({b"host", b"origin", b"sec-fetch-mode", b"sec-fetch-site"})
_OWN = frozenset({"same-origin", "none"})  # `none`: a typed address or a bookmark


class CrossSiteGuard:
    """Refuses requests, of any method, and WebSockets from pages of other sites. Pages of this
    server and of `origins` are allowed, and so is any link to one of the `pages`. Clients other
    than browsers send neither `Origin` nor `Sec-Fetch-Site`, and pass.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], pages: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._pages = frozenset(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with a 403."""
        if scope["type"] == "lifespan" or self._is_allowed(scope, headers := _headers(scope)):
            await self._app(scope, receive, send)
            return
        log.info("cross_site_request_refused", extra={"path": scope["path"][:256]})
        await send_error_response(scope, send, _cross_site_error(headers.get("origin")))

    def _is_allowed(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        if "*" in self._origins or headers.get("origin") in self._origins:
            return True
        return _is_own(headers) or self._is_followed_link(scope, headers)

    def _is_followed_link(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        return (
            headers.get("sec-fetch-mode") == "navigate"
            and scope["type"] == "http"
            and scope["method"] in ("GET", "HEAD")
            and scope["path"] in self._pages
        )


def _headers(scope: Scope) -> Mapping[str, str]:
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in _READ_HEADERS
    }


def _is_own(headers: Mapping[str, str]) -> bool:
    """True if the request comes from a page of this server, or from no page. Reads
    `Sec-Fetch-Site`, which no page can set. Falls back to `Origin` for old browsers, and for
    addresses that are neither HTTPS nor loopback."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in _OWN
    return origin is None or _host_of(origin) == headers.get("host", "").lower()


def _host_of(origin: str) -> str | None:
    """Returns the host of an origin with its port; None if it has no host or is invalid."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _cross_site_error(origin: str | None) -> Forbidden:
    page = "Pages of other sites" if origin is None else f"Pages of the origin `{origin[:100]}`"
    return Forbidden(
        f"{page} may not use this server; name their origin in the setting `cors_origins` if they "
        "should.",
        code="origin_not_allowed",
    )
