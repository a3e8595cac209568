"""Relay of WebSockets to an upstream: message by message, in both directions."""

import asyncio
import logging
from contextlib import aclosing, suppress
from functools import partial

from starlette.websockets import WebSocket

from llm_backend.access import MeteredSession, RequestMeter
from llm_backend.backends.registry import UpstreamModel
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.backends.upstream.websockets import (
    CloseReason,
    UpstreamSocket,
    rename_query_model,
    upstream_protocols,
)
from llm_backend.controllers.realtime.local_models import OPERATION
from llm_backend.controllers.relay.relay import upstream_path, upstream_query
from llm_backend.controllers.relay.routing import FALLBACK_ERRORS
from llm_backend.controllers.services import Services
from llm_backend.controllers.websockets.client_socket import GOING_AWAY, ClientSocket
from llm_backend.errors import ClientGone

log = logging.getLogger(__name__)


def upstream_targets(services: Services, model: str | None) -> list[UpstreamModel | None]:
    """Returns the upstreams to be tried in order, for a model whose first target is an upstream.
    The target None is any upstream with the operation."""
    if model is None:
        return [None]
    targets = services.registry.targets(model, OPERATION)
    return [target for target in targets if isinstance(target, UpstreamModel)]


async def open_upstream_socket(
    services: Services,
    socket: WebSocket,
    targets: list[UpstreamModel | None],
    meter: RequestMeter,
    *,
    fairness_key: str,
) -> UpstreamSocket:
    """Returns the first socket that a target opens. Raises the error of the last target."""
    connect = partial(_connect, services, socket, meter, fairness_key=fairness_key)
    for target in targets[:-1]:
        try:
            return await connect(target, has_fallback=True)
        except FALLBACK_ERRORS as error:
            log.warning("fell_back", extra={"model": target and target.model, "code": error.code})
    return await connect(targets[-1], has_fallback=False)


async def _connect(
    services: Services,
    socket: WebSocket,
    meter: RequestMeter,
    target: UpstreamModel | None,
    *,
    has_fallback: bool,
    fairness_key: str,
) -> UpstreamSocket:
    assert services.upstreams is not None, "there are no targets without upstreams"
    if target is not None:
        await meter.switch_model(target.model)
    query = upstream_query(socket.scope)
    upstream_request = UpstreamRequest(
        method="GET",
        path=upstream_path(socket.scope),
        query=(query if target is None else rename_query_model(query, target.model)).encode(),
        headers=socket.scope["headers"],
        body=b"",
        operation=OPERATION,
        model=target.model if target else None,
        upstream=target.upstream if target else None,
        has_fallback=has_fallback,
        fairness_key=fairness_key,
    )
    protocols = upstream_protocols(socket.scope.get("subprotocols") or [])
    return await services.upstreams.connect(upstream_request, protocols)


async def pump(client: ClientSocket, upstream: UpstreamSocket, session: MeteredSession) -> None:
    """Passes messages on until one side closes, then passes on its close frame. The session checks
    each message first. Raises the session's errors."""
    up = asyncio.create_task(_pump_up(client, upstream, session))
    down = asyncio.create_task(_pump_down(upstream, client, session))
    session_end = asyncio.create_task(session.recheck_forever())
    close_reason = CloseReason(code=GOING_AWAY)
    try:
        await asyncio.wait({up, down, session_end}, return_when=asyncio.FIRST_COMPLETED)
        if session_end.done():
            await session_end
        elif down.done():
            await down
            await client.close(upstream.closing)
        else:
            await up
            close_reason = client.closing
    finally:
        for task in (up, down, session_end):
            task.cancel()
        await asyncio.gather(up, down, session_end, return_exceptions=True)
        await upstream.close(close_reason)


async def _pump_up(client: ClientSocket, upstream: UpstreamSocket, session: MeteredSession) -> None:
    async with aclosing(client.messages()) as messages:
        async for message in messages:
            await session.check_message(message)
            await upstream.send(message)


async def _pump_down(
    upstream: UpstreamSocket, client: ClientSocket, session: MeteredSession
) -> None:
    with suppress(ClientGone):
        async with aclosing(upstream.messages()) as messages:
            async for message in messages:
                session.handle_upstream_message(message)
                await client.send(message)
