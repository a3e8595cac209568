"""Admission control of metered requests. The checks, in their order: permission for the model
(403), spend limit (429), permission for tools and other models (403), rate limits (429),
concurrency limits (429), fair queue (503). Then the request runs, and its usage is counted.
`llm_backend/errors.py` has the statuses of all errors.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.types import Message, Send

from llm_backend.access.authentication.principal import Caller, fairness_key
from llm_backend.access.limits.concurrency import ConcurrencyLimit, acquire_all, release_all
from llm_backend.access.limits.metered_response import MeteredResponse
from llm_backend.access.limits.permission import PermissionChecks, project_of
from llm_backend.access.limits.rate_limits import RateLimits
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.limits.reservation import RequestReservation
from llm_backend.access.limits.websocket_session import MeteredSession
from llm_backend.access.usage.ledger import Ledger
from llm_backend.access.usage.meter import RequestMeter
from llm_backend.access.usage.metered_operations import METERED, MeteredOperation, model_of
from llm_backend.access.usage.spending import Spending
from llm_backend.contract.application.connexion_app import SendResponse
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.body_bounds import text_bytes
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import ClientGone, DeadlineExceeded, ModelNotFound
from llm_backend.fair_queue import FairSemaphore
from llm_backend.offload import offload
from llm_backend.store import as_owner
from llm_backend.stream_ending import SentAnswer


class AdmissionControl:
    """Admits metered requests; other requests pass unchecked. Sets the caller's project as the
    owner of all rows that the request stores and finds."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        spending: Spending,
        policies: RequestPolicies,
        limits: RateLimits,
        permits: FairSemaphore | None = None,
        run_deadline_s: float | None = None,
        keys_refresh_s: float,
        body_limits: BodyLimits,
    ) -> None:
        self._ledger = ledger
        self._policies = policies
        self._permission = PermissionChecks(policies, spending)
        self._limits = limits
        self._permits = permits
        self._run_deadline_s = run_deadline_s
        self._keys_refresh_s = keys_refresh_s
        self._body_limits = body_limits

    async def __call__(self, request: ApiRequest, send_response: SendResponse, send: Send) -> None:
        """Sends the answer, and counts its usage at its end. Raises `Forbidden`, `QuotaExceeded`,
        `RateLimited`, `ServiceUnavailable` or `DeadlineExceeded` if no answer has begun.
        """
        caller: Caller | None = request.caller
        with as_owner(None if caller is None else caller.owner):
            metered = METERED.get(request.operation.operation_id)
            try:
                if metered is None or caller is None:
                    await send_response(request, send)
                else:
                    await self._admit(request, caller, metered, send_response, send)
            except ModelNotFound as error:
                if (
                    error.similar_name is None
                    or caller is None
                    or self.may_use(caller, error.similar_name)
                ):
                    raise
                raise ModelNotFound(error.model) from error  # the caller may not see that name

    async def _admit(
        self,
        request: ApiRequest,
        caller: Caller,
        metered: MeteredOperation,
        send_response: SendResponse,
        send: Send,
    ) -> None:
        model = model_of(request, metered)
        policy = self._permission.check(caller, model, requires_model=metered.requires_model)
        if policy.is_restricted or metered.opens_unmetered_use or metered.is_unknown:
            request = await offload(self._permission.enforce, request, caller, metered)
        is_batch = bool(request.http.scope["state"].get("is_batch"))
        reservation = RequestReservation(
            self._limits, self._policies, project_of(caller), policy, request
        )
        # A batch has a pace of its own: its lines must not exhaust the caller's rate limit.
        if policy.rate_windows and not is_batch:
            await reservation.reserve()
        meter = RequestMeter(
            self._ledger,
            caller,
            kind=metered.kind,
            model=policy.model,
            is_route=policy.is_route,
            service_tier=_tier(request),
            is_batch=is_batch,
            detail=metered.detail(request),
            reserve_target=None if is_batch else reservation.switch_target,
            check_model=partial(self.check, caller),
        )
        response = MeteredResponse(send, reservation, meter, metered.text_pattern)
        is_counted = False
        try:
            request.meter = meter
            await self._run(
                request, send_response, response, () if is_batch else policy.concurrency_limits
            )
        except ClientGone:
            is_counted = meter.is_begun
            raise
        finally:
            is_counted = is_counted or response.is_good
            if is_counted:
                _count(request, response, meter, metered)
            _correct_reservation(reservation, meter, is_counted=is_counted)
            reservation.release_request()

    @asynccontextmanager
    async def session(
        self, authenticate: Callable[[], Caller], model: str
    ) -> AsyncIterator[MeteredSession]:
        """Admits a WebSocket session as one request to this model. `model` is empty if the client
        names it only after the session opened. `authenticate` returns the current caller and is
        called repeatedly. Raises `Forbidden`, `QuotaExceeded` and `RateLimited`."""
        caller = authenticate()
        policy = self.check(caller, model, requires_model=False)
        reservation = RequestReservation(self._limits, self._policies, project_of(caller), policy)
        if policy.rate_windows:
            await reservation.reserve()
        meter = RequestMeter(
            self._ledger,
            caller,
            kind="completions",
            model=policy.model,
            is_route=policy.is_route,
            reserve_target=reservation.switch_target,
        )
        await acquire_all(policy.concurrency_limits)
        try:
            with as_owner(caller.owner):
                yield MeteredSession(
                    self._permission,
                    meter,
                    reservation,
                    authenticate,
                    model,
                    keys_refresh_s=self._keys_refresh_s,
                    body_limits=self._body_limits,
                )
        finally:
            release_all(policy.concurrency_limits)

    def check(self, caller: Caller, model: str, *, requires_model: bool = True) -> RequestPolicy:
        """Returns the policy of this caller with this model. Raises `Forbidden` and
        `QuotaExceeded`."""
        return self._permission.check(caller, model, requires_model=requires_model)

    def check_unmetered_use(self, caller: Caller) -> None:
        """Raises `Forbidden` if a spend limit applies to the caller's project: operations that open
        a session whose usage this server cannot count are refused then."""
        self._permission.check_unmetered_use(caller)

    def may_use(self, caller: Caller, model: str) -> bool:
        """True if the caller's project may use the model."""
        return caller.project is None or self._policies.allows(caller.project, model)

    async def _run(
        self,
        request: ApiRequest,
        send_response: SendResponse,
        response: MeteredResponse,
        limits: Sequence[ConcurrencyLimit],
    ) -> None:
        if limits:
            await acquire_all(limits)
        try:
            if self._permits is None:
                await self._answer(request, send_response, response)
            else:
                await self._run_with_permit(self._permits, request, send_response, response)
        finally:
            release_all(limits)

    async def _run_with_permit(
        self,
        permits: FairSemaphore,
        request: ApiRequest,
        send_response: SendResponse,
        response: MeteredResponse,
    ) -> None:
        if not permits.try_acquire():
            acquiring = permits.acquire(fairness_key(request.caller))
            # While a body is still unread, a disconnect of its client cannot be noticed.
            await (cancel_on_disconnect(request, acquiring) if request.raw_body else acquiring)
        try:
            await self._answer(request, send_response, response)
        finally:
            permits.release()

    async def _answer(
        self, request: ApiRequest, send_response: SendResponse, response: MeteredResponse
    ) -> None:
        if self._run_deadline_s is None:
            await send_response(request, response)
            return
        sent = SentAnswer(request.operation.path)

        def follow(message: Message) -> Awaitable[None]:
            sent.record(message)
            return response(message)

        try:
            async with asyncio.timeout(self._run_deadline_s):
                await send_response(request, follow)
        except TimeoutError:
            error = DeadlineExceeded(
                f"The answer was not ready within this server's deadline of "
                f"{self._run_deadline_s:g} s."
            )
            if not sent.has_begun:
                raise error from None
            # If nothing can be appended, no last chunk is sent: the client sees the cut.
            if (event := sent.error_event(error)) is not None:
                await response({"type": "http.response.body", "body": event})


def _tier(request: ApiRequest) -> str:
    tier = request.body.get("service_tier") if isinstance(request.body, dict) else None
    return tier if isinstance(tier, str) and tier != "auto" else "default"


def _count(
    request: ApiRequest, response: MeteredResponse, meter: RequestMeter, metered: MeteredOperation
) -> None:
    """Counts an answer: with the tokens that an upstream reports at its end, or else with an
    estimate from its text. A local model has already counted its own tokens."""
    if meter.tokens is None and (reported := response.usage()):
        meter.count_tokens(reported)
    elif _is_estimated(meter, metered):
        meter.count_estimate(
            input_bytes=text_bytes(request.raw_body), output_bytes=response.output_text_bytes()
        )
    meter.count_request(metered.units(request.body if isinstance(request.body, dict) else {}))


def _is_estimated(meter: RequestMeter, metered: MeteredOperation) -> bool:
    is_known = meter.tokens is not None or meter.is_deferred
    return meter.is_relayed and not is_known and metered.text_pattern is not None


def _correct_reservation(
    reservation: RequestReservation, meter: RequestMeter, *, is_counted: bool
) -> None:
    """Returns unused tokens to the rate limits. Without reported tokens the estimate of a counted
    answer stands; one that is not counted gets all back."""
    if not is_counted:
        reservation.correct(meter.tokens or 0)
    elif meter.tokens is not None:
        reservation.correct(meter.tokens)
