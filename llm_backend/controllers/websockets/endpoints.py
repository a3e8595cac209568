"""WebSocket endpoints: authentication, routing by path, and refusals."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from llm_backend.access import fairness_key
from llm_backend.backends.upstream.websockets import model_of, with_key
from llm_backend.contract.application.error_responses import send_error_response
from llm_backend.controllers.realtime.client_secrets import find_secret, session_of
from llm_backend.controllers.realtime.event_sender import error_event, event_with_id
from llm_backend.controllers.realtime.local_models import local_session
from llm_backend.controllers.relay.relay import upstream_query
from llm_backend.controllers.services import Services
from llm_backend.controllers.websockets.client_socket import ClientSocket
from llm_backend.controllers.websockets.realtime_socket import serve_realtime
from llm_backend.controllers.websockets.relayed_socket import (
    open_upstream_socket,
    pump,
    upstream_targets,
)
from llm_backend.controllers.websockets.response_socket import serve_responses
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, ClientGone, InvalidRequest, NotFound, Unsupported
from llm_backend.store.administration import StoredSecret

log = logging.getLogger(__name__)

FindCallerByHeaders: TypeAlias = Callable[[Mapping[str, str]], Any]
"""Returns the caller of request headers; raises `Unauthorized` or `Forbidden`."""

FindCaller: TypeAlias = Callable[[], Any]
"""Returns the caller of an open socket by the current keys; raises as `FindCallerByHeaders`
does."""

ServeSocket: TypeAlias = Callable[[Services, WebSocket, ASGIApp, FindCaller], Awaitable[None]]
"""Serves one socket; requests inside it are sent to the application."""

_LIVE = re.compile(r"/live/sessions(/[^/]+/(attach|fork))?")
_FAILED = 1011  # RFC 6455: an unexpected condition


class WebSocketEndpoints:
    """ASGI middleware that serves WebSockets and passes HTTP requests to the application. Requests
    in messages are sent to `request_app`, which logs them.
    """

    def __init__(
        self,
        app: ASGIApp,
        services: Services,
        caller_of: FindCallerByHeaders,
        *,
        request_app: ASGIApp,
    ) -> None:
        self._app = app
        self._services = services
        self._caller_of = caller_of
        self._request_app = request_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        socket = WebSocket(scope, receive, send)
        try:
            await self._serve(socket)
        except ClientGone:
            return
        except ApiError as error:
            log.info("socket_failed", extra={"path": scope["path"], "code": error.code})
            with suppress(WebSocketDisconnect):  # the client may have disconnected meanwhile
                await _refuse(socket, error)

    async def _serve(self, socket: WebSocket) -> None:
        path = socket.scope["path"].removeprefix("/v1").rstrip("/")
        serve = _ENDPOINTS.get(path)
        if _LIVE.fullmatch(path):
            raise Unsupported(
                "Live sessions are not relayed, because their usage could not be charged: connect "
                "to the upstream itself."
            )
        if serve is None:
            sent = socket.scope["path"][:256]
            raise NotFound(f"There is no WebSocket at {sent}.", code="unknown_url")
        protocols = socket.scope.get("subprotocols") or []
        headers = with_key(socket.headers, protocols)
        find_caller: FindCaller = partial(self._caller_of, headers)
        if path == "/realtime":
            secret = await find_secret(self._services, headers)
            if secret is not None:
                keyring = self._services.access.keyring
                find_caller = (
                    partial(keyring.authenticate, {})  # as long as the server needs no key
                    if secret.key_id is None
                    else partial(keyring.caller_of, secret.key_id)
                )
                serve = partial(_realtime, secret=secret)
        await self._services.access.keyring.find_caller(find_caller)
        await serve(self._services, socket, self._request_app, find_caller)


async def _realtime(
    services: Services,
    socket: WebSocket,
    app: ASGIApp,
    find_caller: FindCaller,
    secret: StoredSecret | None = None,
) -> None:
    """`/realtime`: a session with a local model, or relayed. A client secret opens its session."""
    model = model_of(upstream_query(socket.scope))
    only_transcribes = socket.query_params.get("intent") == "transcription"
    config = (
        await local_session(services, model, only_transcribes=only_transcribes)
        if secret is None
        else session_of(services, secret, model)
    )
    if config is not None:
        serving = serve_realtime(services, socket, app, find_caller, config)
        await _serve_while_valid(serving, find_caller, services.settings.keys_refresh_s)
        return
    if model is None and services.upstreams is None:
        raise InvalidRequest(
            "Name the model of the session in the query: `?model=`; see GET /v1/models.",
            param="model",
            code="missing_required_parameter",
        )
    await _relay_realtime(services, socket, model, find_caller)


async def _relay_realtime(
    services: Services, socket: WebSocket, model: str | None, find_caller: FindCaller
) -> None:
    """Relays a session: accepts it once the upstream has, and charges the usage that this
    reports."""
    async with services.access.admission.session(find_caller, model or "") as session:
        targets = upstream_targets(services, model)
        await socket.receive()  # the connect event
        async with ClientSocket(socket) as client:
            opening = open_upstream_socket(
                services, socket, targets, session.meter, fairness_key=fairness_key(find_caller())
            )
            upstream = await client.cancel_on_disconnect(opening)
            await socket.accept(upstream.protocol)
            await pump(client, upstream, session)


async def _responses(
    services: Services, socket: WebSocket, app: ASGIApp, find_caller: FindCaller
) -> None:
    """`/responses`: each message is a request of its own, with its own model and usage, as long as
    the key is valid."""
    if model := socket.query_params.get("model"):
        services.access.admission.check(find_caller(), model)
    serving = serve_responses(services, socket, app)
    await _serve_while_valid(serving, find_caller, services.settings.keys_refresh_s)


async def _serve_while_valid(
    serving: Coroutine[Any, Any, None], find_caller: FindCaller, every_s: float
) -> None:
    """Runs `serving` as long as the key is valid."""
    task = asyncio.create_task(serving)
    rechecking = asyncio.create_task(_recheck_forever(find_caller, every_s))
    try:
        await asyncio.wait({task, rechecking}, return_when=asyncio.FIRST_COMPLETED)
        await (rechecking if rechecking.done() else task)
    finally:
        for one in (task, rechecking):
            one.cancel()
        await asyncio.gather(task, rechecking, return_exceptions=True)


async def _recheck_forever(find_caller: FindCaller, every_s: float) -> NoReturn:
    """Checks the key periodically; raises the error of `find_caller` once the key is invalid."""
    while True:
        await asyncio.sleep(every_s)
        find_caller()


_ENDPOINTS: Mapping[str, ServeSocket] = {"/realtime": _realtime, "/responses": _responses}


async def _refuse(socket: WebSocket, error: ApiError) -> None:
    """Refuses a socket with the error's status; an accepted one with an error event and a close."""
    if socket.application_state is WebSocketState.CONNECTING:
        await send_error_response(socket.scope, socket.send, error)
        return
    if socket.application_state is WebSocketState.CONNECTED:
        event = {"type": "error", "status": error.status, **error_body(error)}
        if socket.scope["path"].rstrip("/").endswith("/realtime"):
            event = event_with_id(error_event(error_body(error)["error"], None))
        await socket.send_text(orjson.dumps(event).decode())
        await socket.close(_FAILED)
