"""`/realtime` with a local model: the socket of a realtime session."""

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from llm_backend.backends.upstream.websockets import CloseReason, upstream_protocols
from llm_backend.contract.body import json_limits
from llm_backend.controllers.realtime import RealtimeSession
from llm_backend.controllers.realtime.local_models import check_images, check_local_model
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.controllers.realtime.session_requests import SessionRequests
from llm_backend.controllers.services import Services
from llm_backend.controllers.websockets.client_socket import GOING_AWAY, ClientSocket
from llm_backend.errors import InvalidRequest

_BETA_HEADER, _BETA = "openai-beta", "realtime"


async def serve_realtime(
    services: Services,
    socket: WebSocket,
    app: ASGIApp,
    find_caller: Callable[[], Any],
    config: SessionConfig,
) -> None:
    """Serves a session until the client disconnects, or for `realtime_session_s`. Raises `ApiError`
    before the handshake for a session that is refused."""
    settings = services.settings
    model: str = config.fields.get("model") or ""
    if model:
        await check_local_model(services, model)
    _refuse_beta(socket)
    caller = find_caller()
    services.access.admission.check(caller, model, requires_model=False)
    with services.session_limit.acquire(caller.key_id):
        await socket.receive()  # the connect event
        protocols = upstream_protocols(socket.scope.get("subprotocols") or [])
        await socket.accept(protocols[0] if protocols else None)
        async with ClientSocket(socket) as client:
            session = RealtimeSession(
                client,
                config,
                SessionRequests(app, find_caller),
                services.validators,
                json_limits(settings),
                duration_s=settings.realtime_session_s,
                responses_limit=settings.socket_streams_limit,
                input_limit_s=settings.realtime_input_limit_s,
                check_images=partial(check_images, services, model),
            )
            if not await session.run():
                await client.close(CloseReason(code=GOING_AWAY, reason="session expired"))


def _refuse_beta(socket: WebSocket) -> None:
    """Raises `InvalidRequest` for a client that expects the events of the beta API."""
    headers = socket.headers.getlist(_BETA_HEADER)
    protocols = socket.scope.get("subprotocols") or []
    if any(_BETA in one for one in headers) or f"{_BETA_HEADER}.{_BETA}-v1" in protocols:
        raise InvalidRequest(
            "Local models speak the events of the released API: leave out `OpenAI-Beta`.",
            param="OpenAI-Beta",
            code="beta_api_shape_disabled",
        )
