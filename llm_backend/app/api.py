"""The API: every operation of the OpenAPI document routed to its controller, behind guards."""

import importlib
from collections.abc import Awaitable
from functools import cache
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from llm_backend.access.idempotency.idempotency_keys import Idempotency
from llm_backend.access.limits.limit_headers import LIMIT_HEADERS
from llm_backend.contract import Document, Operation
from llm_backend.contract.application.connexion_app import build_app
from llm_backend.contract.application.envelope import EXPOSED_HEADERS
from llm_backend.contract.body import json_limits
from llm_backend.contract.request import ApiRequest, Handler
from llm_backend.contract.response_validation import ResponseCheckMode
from llm_backend.contract.validation import Validators
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.detached_answers import DetachedAnswers
from llm_backend.controllers.websockets import WebSocketEndpoints
from llm_backend.cross_site_guard import CrossSiteGuard
from llm_backend.guards import PROBE_PATHS, AbortedStreams, AccessLog, HostGuard
from llm_backend.web import PAGES, WebPages

if TYPE_CHECKING:  # OpenTelemetry is imported only with an endpoint
    from llm_backend.tracing import Tracing


def build_operations(document: Document, validators: Validators, services: Services) -> ASGIApp:
    """Builds the application of all operations."""
    settings = services.settings
    return build_app(
        document,
        validators,
        services,
        handler_of=_handler_of,
        authenticate=services.access.authenticate,
        admission=Idempotency(services.access.admission, services.access.shared_answers),
        limits=json_limits(settings),
        check_relayed=True,
        response_checks=ResponseCheckMode(settings.response_validation),
        logs_bodies=settings.logs_prompts,
        no_relay_reason=_no_relay_reason(services),
        temporary_files=services.temporary_files,
    )


def _no_relay_reason(services: Services) -> str | None:
    """Returns the reason why unknown operations are not relayed; None if they are."""
    if services.upstreams is None:
        return "no upstream is configured: set OPENAI_API_KEY or `backends`"
    if services.settings.strict:
        return "with `strict`, operations that the document does not have are not relayed"
    return None


def _handler_of(operation: Operation) -> Handler:
    """Returns the handler of an operation. Its controller is imported on the first request: most
    are never used, and the start does not wait for them."""
    controller = cache(lambda: _controller_of(operation))

    def handle(services: Services, request: ApiRequest) -> Awaitable[Response]:
        return controller()(services, request)

    return handle


def _controller_of(operation: Operation) -> Handler:
    """Imports the controller's function of the operation; without a controller, the relay's."""
    module = f"llm_backend.controllers.{operation.controller or 'relay.routing'}"
    name = operation.function if operation.controller else "relay_operation"
    handler: Handler = getattr(importlib.import_module(module), name)
    return handler


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
    app = DetachedAnswers(
        app,
        services.detached_chats,
        services.detached_peers,
        wait_stored=services.chat_recorder.wait_stored,
    )
    if settings.web:
        app = WebPages(app, settings.web_ui)
    if settings.hosts:
        names_hosts = bool(settings.allowed_hosts)
        app = HostGuard(
            app,
            settings.hosts,
            lambda: names_hosts or keyring.is_open_to_all,
            exempt=() if settings.is_loopback else PROBE_PATHS,
        )
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
