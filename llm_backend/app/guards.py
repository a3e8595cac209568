"""Guards in front of the API, in their order."""

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from llm_backend.access.limits.rate_limits import LIMIT_HEADERS
from llm_backend.contract.application.envelope import EXPOSED_HEADERS
from llm_backend.controllers.chat.detached_chats import DetachedAnswers
from llm_backend.controllers.services import Services
from llm_backend.controllers.websockets import WebSocketEndpoints
from llm_backend.cross_site_guard import CrossSiteGuard
from llm_backend.guards import AbortedStreams, AccessLog, HostGuard
from llm_backend.web import PAGES, WebPages

if TYPE_CHECKING:  # OpenTelemetry is imported only with an endpoint
    from llm_backend.tracing import Tracing


def add_guards(app: ASGIApp, services: Services, tracing: "Tracing | None") -> ASGIApp:
    """Wraps the application in its guards, the outermost last."""
    settings = services.settings
    keyring = services.access.keyring
    app = WebSocketEndpoints(
        app,
        services,
        keyring.authenticate,
        request_app=add_access_log(app, services),
    )
    app = DetachedAnswers(app, services.detached_chats)
    if settings.web:
        app = WebPages(app, settings.web_ui)
    if settings.hosts:
        app = HostGuard(app, settings.hosts)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[*EXPOSED_HEADERS, "retry-after", *LIMIT_HEADERS],
        )
    app = CrossSiteGuard(app, settings.cors_origins, PAGES if settings.web else ())
    app = add_access_log(AbortedStreams(app), services)
    if tracing is None:
        return app
    from llm_backend.tracing import TracedRequests

    return TracedRequests(app, tracing)


def add_access_log(app: ASGIApp, services: Services) -> ASGIApp:
    """Wraps the application in a log line for each request."""
    return AccessLog(app, services.metrics, services.recent_errors)
