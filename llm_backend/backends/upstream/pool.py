"""Upstream pool: routing, load balancing, and retries at other upstreams after failures."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol, Self, TypeVar

from llm_backend.backends.upstream.answer_kinds import (
    ANY,
    EVENTS_OR_JSON,
    JSON_ONLY,
    AnswerKinds,
    answer_kinds_of,
)
from llm_backend.backends.upstream.attempts import Attempts
from llm_backend.backends.upstream.balance import Balance
from llm_backend.backends.upstream.config import WIRES, WireProtocol
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.permits.permit_queue import PermitQueue, busy_error
from llm_backend.backends.upstream.retry_rules import BUSY, backoff_s
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.backends.upstream.upstream_routing import UpstreamRouting
from llm_backend.backends.upstream.websockets import UpstreamSocket
from llm_backend.errors import ApiError, UpstreamError, UpstreamFailed
from llm_backend.json_types import JsonMapping, JsonObject

Answer = TypeVar("Answer")


class PermitSharing(Protocol):
    """Permits that several processes share; `PermitClient` implements it."""

    async def acquire(self, attempts: Attempts) -> Upstream: ...


class UpstreamPool:
    """Pool of upstreams, opened and closed by `async with`.

    A request goes to the least busy upstream that may answer it, is not ejected and is below its
    concurrency limit. A failed request is retried, at an untried upstream if there is one, in these
    cases:

    * it counts as not processed (`UpstreamError.may_be_processed` is False),
    * the answer has a status of `retry_rules.BUSY`, and an untried upstream is left,
    * the request's method is idempotent, and no answer has begun, or
    * the request has an idempotency key that the upstream honours; it is sent to the same upstream.

    With `has_fallback` (the route has a further target) requests are retried at untried upstreams
    only, after each status of `retry_rules.FALLBACK`, too (`is_at_most_once`: of `BUSY` only), and
    not for their idempotency key. There are three attempts at most, and none after a streamed body
    has begun.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        operations: Mapping[str, str] | None = None,
        shared: PermitSharing | None = None,
        media_types_of: Callable[[str], frozenset[str]] = lambda _: frozenset(),
    ) -> None:
        """`shared` are permits of several processes; None if this is the only process.
        `media_types_of` returns the media types of an operation's successful answers."""
        self._upstreams = {one.name: one for one in upstreams}
        self.routing = UpstreamRouting([one.config for one in upstreams], operations)
        self._balance = Balance()
        self._queue: PermitQueue[Upstream] = PermitQueue(self._balance.choose)
        self._shared = shared
        self._media_types_of = media_types_of
        for one in upstreams if shared is None else ():
            one.on_permit_free = self._queue.grant
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for upstream in self._upstreams.values():
            await self._stack.enter_async_context(upstream)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def exchange(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Sends a request and returns the answer as soon as its headers have arrived.

        Raises `UpstreamError`, `ServiceUnavailable` if all upstreams are busy, and as
        `Upstream.exchange`.
        """
        attempts = Attempts(request, self._may_answer(request), self._expected_answer(request))
        while True:
            relayed = await self._send(attempts, attempts.send)
            if not attempts.is_retriable_answer(relayed):
                return relayed
            request.on_attempt(None)
            await relayed.aclose()
            if not attempts.has_untried:
                failed = UpstreamFailed("No upstream could answer the request.")
                failed.may_be_processed = relayed.status not in BUSY
                raise failed
            await _pause(attempts)

    async def send_without_permit(
        self, upstream: str, *, method: str, path: str, query: bytes = b""
    ) -> UpstreamAnswer:
        """Sends a request without a body to the upstream of this name: once, without a permit, and
        while other requests hold permits there. Raises `UpstreamFailed` and `UpstreamTimeout`."""
        return await self._upstreams[upstream].exchange(
            method=method,
            path=path,
            query=query,
            headers=((b"accept", b"application/json"),),
            body=b"",
            expected=JSON_ONLY,
        )

    def is_exclusive(self, upstream: str) -> bool:
        """Returns True if the upstream of this name gets one request at a time."""
        return self._upstreams[upstream].config.concurrency == 1

    async def connect(self, request: UpstreamRequest, protocols: Sequence[str]) -> UpstreamSocket:
        """Opens a WebSocket and offers these subprotocols. Raises as `exchange`, and the error of
        the status if an upstream refuses the handshake."""
        attempts = Attempts(request, self._may_answer(request))
        return await self._send(attempts, lambda upstream: attempts.connect(upstream, protocols))

    async def _send(
        self, attempts: Attempts, send: Callable[[Upstream], Awaitable[Answer]]
    ) -> Answer:
        """Sends a request, and retries while the errors permit it; returns the first answer."""
        while True:
            upstream = await self._next(attempts)
            try:
                return await send(upstream)
            except UpstreamError as error:
                if not attempts.prepare_retry(error):
                    raise
            await _pause(attempts)

    def serves(self, model: str, operation: Sequence[str] = ()) -> bool:
        """Returns True if an upstream serves this model."""
        return self.routing.serves(model, operation)

    def response_upstreams(self, operation: Sequence[str]) -> Sequence[str]:
        """Returns the names of the upstreams with the responses operation, which may store a
        response. The upstream for requests without a model is first, if it is among them."""
        first = self.routing.for_operation(operation)
        names = [*first, *(name for name in self._upstreams if name not in first)]
        return [
            name for name in names if self._upstreams[name].config.speaks(WireProtocol.RESPONSES)
        ]

    def has_responses(self, operation: Sequence[str]) -> bool:
        """Returns True if the upstream for requests without a model has the responses operation."""
        names = self.routing.for_operation(operation)
        return all(self._upstreams[name].config.speaks(WireProtocol.RESPONSES) for name in names)

    @property
    def is_available(self) -> bool:
        """True if an upstream is not ejected, or its ejection time is over."""
        now_s = asyncio.get_running_loop().time()
        return any(one.health.is_available(now_s) for one in self._upstreams.values())

    def any_speaks(
        self, wire: WireProtocol, model: str, upstream: str | None, operation: Sequence[str]
    ) -> bool:
        """Returns True if an upstream that may answer the model speaks this wire protocol."""
        named = [upstream] if upstream else self.routing.for_model(model, tuple(operation))
        return any(self._upstreams[name].config.speaks(wire) for name in named)

    async def models(self) -> list[JsonMapping]:
        """Lists the models of all upstreams, without duplicate names. A failed upstream's models
        are missing."""
        lists = await asyncio.gather(*(_models_of(one) for one in self._upstreams.values()))
        found: dict[str, JsonMapping] = {}
        for listed in lists:
            for model in listed:
                found.setdefault(model["id"], model)
        return list(found.values())

    def _may_answer(self, request: UpstreamRequest) -> list[Upstream]:
        names: Sequence[str] = ()
        if request.upstream is not None:
            names = [request.upstream]
        elif request.model is not None:
            names = self.routing.for_model(request.model, tuple(request.operation))
        names = names or self.routing.for_operation(request.operation)
        upstreams = [self._upstreams[name] for name in names]
        wire = request.wire
        if wire is None and request.operation:
            wire = WIRES.get(request.operation[0])
        return [one for one in upstreams if one.config.speaks(wire)] or upstreams

    def _expected_answer(self, request: UpstreamRequest) -> AnswerKinds:
        if request.wire is not None:
            return EVENTS_OR_JSON  # the bridge sends another operation than the client's
        if not request.operation:
            return ANY
        operation_id = request.operation[0]
        return answer_kinds_of(self._media_types_of(operation_id), streams=request.streams)

    async def _next(self, attempts: Attempts) -> Upstream:
        """Waits for an upstream below its concurrency limit. Raises `ServiceUnavailable`."""
        if self._shared is not None:
            return await self._shared.acquire(attempts)
        if free := attempts.with_free_permit():
            return free[0] if len(free) == 1 else self._balance.choose(free)
        if attempts.request.has_fallback:
            raise busy_error()
        return await self._queue.acquire(
            attempts.request.fairness_key,
            group=attempts.names,
            free=attempts.with_free_permit,
            timeout_s=attempts.queue_timeout_s,
        )


async def _pause(attempts: Attempts) -> None:
    await asyncio.sleep(backoff_s(len(attempts.tried), random.random()))  # noqa: S311 # jitter


async def _models_of(upstream: Upstream) -> list[JsonObject]:
    named = [{"id": name, "object": "model", "created": 0, "owned_by": "upstream"}
             for name in upstream.config.named_models]  # fmt: skip
    if not upstream.config.lists_models:
        return named
    try:
        listed = await upstream.models()
    except ApiError:  # already logged
        return []
    return [model for model in listed if upstream.config.may_list(model["id"])]
