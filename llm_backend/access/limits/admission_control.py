"""What every request that asks a model passes, in this order: may the project use it, is there
money left, do the limits allow it, is there room. Then it runs, and is counted with what it uses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.types import Message, Send

from llm_backend.access.authentication.permission import Permission, project_of
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.concurrency import ConcurrencyLimit, enter, leave
from llm_backend.access.limits.fair_queue import FairQueue
from llm_backend.access.limits.rate_limits import RateLimits
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.limits.reservation import RateLimitReservation
from llm_backend.access.limits.websocket_session import MeteredSession
from llm_backend.access.usage.estimate import text_bytes
from llm_backend.access.usage.ledger import Ledger
from llm_backend.access.usage.meter import METER, RequestMeter, metering
from llm_backend.access.usage.metered_operations import METERED, MeteredOperation, model_of
from llm_backend.access.usage.metered_response import MeteredResponse
from llm_backend.access.usage.spending import Spending
from llm_backend.backends.upstream.stream_ending import SentEvents
from llm_backend.contract.client_disconnect import unless_gone
from llm_backend.contract.connexion_app import Answer
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import ClientGone, DeadlineExceeded
from llm_backend.offload import offload
from llm_backend.store import as_owner

__all__ = ["AdmissionControl"]

LOOK_EVERY_S = 5.0  # whether the key of an open WebSocket may still ask


class AdmissionControl:
    """Lets requests through that ask a model; all others as they come. What is stored and found
    meanwhile is the caller's project's."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        spending: Spending,
        plans: RequestPolicies,
        limits: RateLimits,
        line: FairQueue | None = None,
        run_deadline_s: float | None = None,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._ledger = ledger
        self._plans = plans
        self._permission = Permission(plans, spending)
        self._limits = limits
        self._line = line
        self._run_deadline_s = run_deadline_s
        self._look_every_s = look_every_s

    async def __call__(self, request: ApiRequest, answer: Answer, send: Send) -> None:
        """Sends the answer, and counts it when it has ended. Raises `Forbidden`, `QuotaExceeded`,
        `RateLimited`, `Overloaded` or `DeadlineExceeded` where there is none.
        """
        caller: Caller | None = request.caller
        with as_owner(None if caller is None else caller.owner):
            metered = METERED.get(request.operation.operation_id)
            if metered is None or caller is None:
                await answer(request, send)
            else:
                await self._metered(request, caller, metered, answer, send)

    async def _metered(
        self,
        request: ApiRequest,
        caller: Caller,
        metered: MeteredOperation,
        answer: Answer,
        send: Send,
    ) -> None:
        model = model_of(request, metered)
        plan = self._permission.check(caller, model, names_model=metered.names_model)
        if plan.is_bound or metered.leads_past or metered.is_unknown:
            request = await offload(self._permission.hold, request, caller, metered)
        is_batch = bool(request.http.scope["state"].get("is_batch"))
        reservation = RateLimitReservation(
            self._limits, self._plans, project_of(caller), plan, request
        )
        # A batch has its own pace: its lines are no callers who come too often.
        if plan.allowances and not is_batch:
            await reservation.begin()
        meter = RequestMeter(
            self._ledger,
            caller,
            kind=metered.kind,
            model=plan.model,
            is_route=plan.is_route,
            service_tier=_tier(request),
            is_batch=is_batch,
            detail=metered.detail(request),
            turn=None if is_batch else reservation.turn_to,
        )
        watched = MeteredResponse(send, reservation, meter, metered.texts)
        counts = False
        try:
            await self._run(request, answer, watched, meter, () if is_batch else plan.slots)
        except ClientGone:
            counts = meter.is_begun
            raise
        finally:
            counts = counts or watched.is_good
            if counts:
                _count(request, watched, meter, metered)
            _correct(reservation, meter, counts=counts)
            reservation.release_request()

    @asynccontextmanager
    async def session(
        self, look: Callable[[], Caller], model: str
    ) -> AsyncIterator[MeteredSession]:
        """A WebSocket's time, as one request to this model, which may be named later. `look` says
        who asks, now and again. Raises what requests do."""
        caller = look()
        plan = self.check(caller, model, names_model=False)
        reservation = RateLimitReservation(self._limits, self._plans, project_of(caller), plan)
        if plan.allowances:
            await reservation.begin()
        meter = RequestMeter(
            self._ledger,
            caller,
            kind="completions",
            model=plan.model,
            is_route=plan.is_route,
            turn=reservation.turn_to,
        )
        await enter(plan.slots)
        try:
            with metering(meter), as_owner(caller.owner):
                yield MeteredSession(
                    self._permission, meter, reservation, look, model, every_s=self._look_every_s
                )
        finally:
            leave(plan.slots)

    def check(self, caller: Caller, model: str, *, names_model: bool = True) -> RequestPolicy:
        """What holds for this caller with this model. Raises `Forbidden` and `QuotaExceeded`, as
        `Permission.check` does."""
        return self._permission.check(caller, model, names_model=names_model)

    def may_use(self, caller: Caller, model: str) -> bool:
        """Whether the caller's project is allowed the model."""
        return caller.project is None or self._plans.allows(caller.project, model)

    async def _run(
        self,
        request: ApiRequest,
        answer: Answer,
        watched: MeteredResponse,
        meter: RequestMeter,
        slots: Sequence[ConcurrencyLimit],
    ) -> None:
        await enter(slots)
        before = METER.set(meter)
        try:
            if self._line is None:
                await self._answered(request, answer, watched)
            else:
                await self._in_turn(self._line, request, answer, watched)
        finally:
            leave(slots)
            METER.reset(before)

    async def _in_turn(
        self, line: FairQueue, request: ApiRequest, answer: Answer, watched: MeteredResponse
    ) -> None:
        if not line.entered():
            entering = line.enter(request.caller.key_id or "")
            # Of a body that has not been read nobody can tell whether its client is there.
            await (unless_gone(request, entering) if request.raw_body else entering)
        try:
            await self._answered(request, answer, watched)
        finally:
            line.leave()

    async def _answered(
        self, request: ApiRequest, answer: Answer, watched: MeteredResponse
    ) -> None:
        if self._run_deadline_s is None:
            await answer(request, watched)
            return
        sent = SentEvents()

        def follow(message: Message) -> Awaitable[None]:
            sent.take(message)
            return watched(message)

        try:
            async with asyncio.timeout(self._run_deadline_s):
                await answer(request, follow)
        except TimeoutError:
            error = DeadlineExceeded(
                f"The answer was not ready within this server's deadline of "
                f"{self._run_deadline_s:g} s."
            )
            if not sent.has_begun:
                raise error from None
            # What is no stream of events stays without its end: that tells that it is not whole.
            if (event := sent.last_words(error)) is not None:
                await watched({"type": "http.response.body", "body": event})


def _tier(request: ApiRequest) -> str:
    tier = request.body.get("service_tier") if isinstance(request.body, dict) else None
    return tier if isinstance(tier, str) and tier != "auto" else "default"


def _count(
    request: ApiRequest, watched: MeteredResponse, meter: RequestMeter, metered: MeteredOperation
) -> None:
    """Counts an answer with the tokens that an upstream tells at its end, and about as many as were
    said where it tells none; a local model has counted its own."""
    if meter.tokens is None and (told := watched.usage()):
        meter.used(told)
    elif _is_guessed(meter, metered):
        asked_bytes, said_bytes = text_bytes(request.raw_body), watched.said_bytes()
        meter.estimated(input_bytes=asked_bytes, output_bytes=said_bytes)
    meter.answered(metered.units(request.body if isinstance(request.body, dict) else {}))


def _is_guessed(meter: RequestMeter, metered: MeteredOperation) -> bool:
    is_known = meter.tokens is not None or meter.is_deferred
    return meter.is_relayed and not is_known and metered.texts is not None


def _correct(reservation: RateLimitReservation, meter: RequestMeter, *, counts: bool) -> None:
    """Gives back what was taken and not used. What nobody tells is as it was reckoned."""
    if not counts:
        reservation.correct(meter.tokens or 0)
    elif meter.tokens is not None:
        reservation.correct(meter.tokens)
