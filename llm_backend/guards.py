"""ASGI middleware: allowed hosts, ends of aborted streams, and the access log."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_backend.contract.application.error_responses import send_error_response
from llm_backend.controllers.services.error_buffer import AnsweredError, RecentErrors
from llm_backend.errors import (
    RESTART_RETRY_AFTER_S,
    ApiError,
    Forbidden,
    NotServing,
    ServiceUnavailable,
)
from llm_backend.metrics import Metrics
from llm_backend.stream_ending import SentAnswer

log = logging.getLogger(__name__)


PROBE_PATHS = frozenset(
    f"{prefix}/{name}" for prefix in ("", "/v1") for name in ("healthz", "readyz", "metrics")
)
"""Paths of probes and of Prometheus, which address a server by its IP address."""


class HostGuard:
    """Refuses requests whose `Host` is not one of this server's names, but for paths in `exempt`.

    By DNS rebinding, a web page's own name can resolve to this machine, and its scripts can then
    use a server that is open on loopback. The `Host` header still has the page's name. `is_needed`
    is called for each request, because the first key closes an open server while it runs.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        is_needed: Callable[[], bool],
        exempt: Collection[str] = (),
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._is_needed = is_needed
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_exempt = scope["type"] == "lifespan" or scope["path"] in self._exempt
        is_unguarded = is_exempt or not self._is_needed()
        if is_unguarded or self._is_known(host := _host(scope)):
            await self._app(scope, receive, send)
            return
        error = Forbidden(
            f"This server does not answer to the host `{host[:100]}`; "
            "name it in the setting `allowed_hosts` if it should.",
            code="host_not_allowed",
        )
        await send_error_response(scope, send, error)

    def _is_known(self, host: str) -> bool:
        return host.rpartition(":")[0] in self._hosts or host in self._hosts


class AbortedStreams:
    """Ends answers that the server cancels after its grace period: with a 503, or with an error
    event if an event stream has begun.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = SentAnswer(scope["path"])

        def watch(message: Message) -> Awaitable[None]:
            sent.record(message)
            return send(message)

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            error = ServiceUnavailable(
                "The server is stopping; retry when it is back.",
                retry_after_s=RESTART_RETRY_AFTER_S,
            )
            if not sent.has_begun:
                await send_error_response(scope, send, error)
            elif (event := sent.error_event(error)) is not None:
                await send({"type": "http.response.body", "body": event})
            # Any other answer that has begun ends without its last chunk, by which the client
            # detects that it is incomplete.


_PROBES = frozenset({"getHealth", "getReadiness", "getMetrics", "getPing"})


class AccessLog:
    """Logs and counts each answer at its end, by operation and without its content. Stores errors
    for the callers who received them."""

    def __init__(self, app: ASGIApp, metrics: Metrics, recent_errors: RecentErrors) -> None:
        self._app = app
        self._metrics = metrics
        self._recent_errors = recent_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started_at = 0, time.perf_counter()

        def watch(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watch)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, status, time.perf_counter() - started_at)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope.get("state", {})
        operation = state.get("operation_id") or "none"
        self._metrics.record_request(operation, status, seconds)
        if (error := state.get("error")) is not None and "caller" in state:
            self._remember(state, operation, error)
        is_probe = operation in _PROBES and status < 400
        is_failure = status >= 500 and status != 501 and not isinstance(error, NotServing)
        level = logging.ERROR if is_failure else logging.INFO
        level = logging.DEBUG if is_probe else level
        if log.isEnabledFor(level):
            fields = {"operation": operation, "status": status, "ms": round(seconds * 1e3, 1)}
            log.log(level, "answered", extra={**fields, "request_id": state.get("request_id")})

    def _remember(self, state: Mapping[str, Any], operation: str, error: ApiError) -> None:
        """Stores an error that a known caller received, also as an event of a stream."""
        self._recent_errors.add(
            AnsweredError(
                at=int(time.time()),
                request_id=state["request_id"],
                operation=operation,
                status=error.status,
                code=error.code,
                message=error.message,
                key_id=state["caller"].key_id,
            )
        )


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value.decode("latin-1").lower())
    return ""
