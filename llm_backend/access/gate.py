"""What every request that asks a model passes, in this order: may the project use it, is there
money left, do the limits allow it, is there room. Then it runs, and is counted with what it uses.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Send

from llm_backend.access.caller import Caller
from llm_backend.access.hosted_tool_types import check_tools
from llm_backend.access.ledger import Ledger
from llm_backend.access.limits import Limits, Taken
from llm_backend.access.line import Line
from llm_backend.access.meter import METER, Meter
from llm_backend.access.metered_operations import METERED, Metered, model_of
from llm_backend.access.plans import Plan, Plans, Slots
from llm_backend.access.spending import Spending
from llm_backend.access.watched import Watched
from llm_backend.contract.connexion_app import Answer
from llm_backend.contract.leaving import unless_gone
from llm_backend.contract.request import Request
from llm_backend.errors import DeadlineExceeded, Forbidden, RequestsLimited
from llm_backend.store import in_the_name_of

__all__ = ["Gate"]

CHARACTERS_A_TOKEN = 4  # of a body: what a request may take, before it is known what it took
BUSY_S = 1.0  # after which somebody who had too many requests at once may come back
_ANSWER_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Gate:
    """Lets requests through that ask a model; all others as they come. What is stored and found
    meanwhile is the caller's project's."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        spending: Spending,
        plans: Plans,
        limits: Limits,
        line: Line | None = None,
        run_deadline_s: float | None = None,
    ) -> None:
        self._ledger = ledger
        self._spending = spending
        self._plans = plans
        self._limits = limits
        self._line = line
        self._run_deadline_s = run_deadline_s

    async def __call__(self, request: Request, answer: Answer, send: Send) -> None:
        """Sends the answer, and counts it when it has ended. Raises `Forbidden`, `QuotaExceeded`,
        `RateLimited`, `Overloaded` or `DeadlineExceeded` where there is none.
        """
        caller: Caller | None = request.caller
        with in_the_name_of(None if caller is None else caller.owner):
            metered = METERED.get(request.operation.operation_id)
            if metered is None or caller is None:
                await answer(send)
            else:
                await self._metered(request, caller, metered, answer, send)

    async def _metered(
        self, request: Request, caller: Caller, metered: Metered, answer: Answer, send: Send
    ) -> None:
        body = request.body if isinstance(request.body, dict) else {}
        model = model_of(request)
        plan = self.check(caller, model)
        _hold_to_project(caller, body)
        is_batch = bool(request.http.scope["state"].get("is_batch"))
        # A batch has its own pace: its lines are no callers who come too often.
        allowances = () if is_batch else plan.allowances
        tokens = _estimate(request, body) if allowances else 0
        taken = await self._limits.take(allowances, tokens) if allowances else None
        meter = _meter(self._ledger, request, plan.model, metered, is_batch=is_batch)
        headers = self._limits.headers(allowances) if allowances else {}
        watched = Watched(send, headers)
        try:
            await self._run(request, answer, watched, meter, () if is_batch else plan.slots)
        finally:
            _count(watched, meter, metered.units(body))
            _correct(taken, watched, meter)

    def check(self, caller: Caller, model: str) -> Plan:
        """What holds for this caller with this model. Raises `Forbidden` where the caller may not
        use it, and `QuotaExceeded`."""
        project = caller.project
        assert project is not None, "who calls a model has a project"
        plan = self._plans.plan(caller, model)
        if not plan.is_allowed:
            which = f"model `{model}`" if model else "a model that the request does not name"
            raise Forbidden(
                f"Project `{project.id}` does not have access to {which}.",
                param="model",
                code="model_not_found",
            )
        self._spending.check(project)
        return plan

    def may_use(self, caller: Caller, model: str) -> bool:
        """Whether the caller's project is allowed the model."""
        is_free = caller.project is None or caller.project.models is None
        return is_free or self._plans.plan(caller, model).is_allowed

    async def _run(
        self,
        request: Request,
        answer: Answer,
        watched: Watched,
        meter: Meter,
        slots: Sequence[Slots],
    ) -> None:
        for one in slots:
            _check_slots(one)
        for one in slots:
            one.running += 1
        before = METER.set(meter)
        try:
            if self._line is None:
                await self._answered(answer, watched)
            else:
                await self._in_turn(self._line, request, answer, watched)
        finally:
            for one in slots:
                one.running -= 1
            METER.reset(before)

    async def _in_turn(
        self, line: Line, request: Request, answer: Answer, watched: Watched
    ) -> None:
        if not line.entered():
            entering = line.enter(request.caller.key_id or "")
            # Of a body that has not been read nobody can tell whether its client is there.
            await (unless_gone(request, entering) if request.raw_body else entering)
        try:
            await self._answered(answer, watched)
        finally:
            line.leave()

    async def _answered(self, answer: Answer, watched: Watched) -> None:
        if self._run_deadline_s is None:
            await answer(watched)
            return
        try:
            async with asyncio.timeout(self._run_deadline_s):
                await answer(watched)
        except TimeoutError:
            error = DeadlineExceeded(
                f"The answer was not ready within this server's deadline of "
                f"{self._run_deadline_s:g} s."
            )
            if not watched.has_begun:
                raise error from None
            await watched.end_with(error)


def _hold_to_project(caller: Caller, body: dict[str, Any]) -> None:
    """The request, as the caller's project lets it be."""
    project = caller.project
    if project is not None and project.forbidden_tools:
        check_tools(body, project.forbidden_tools)
    if project is not None and project.keeps_nothing:
        body["store"] = False


def _meter(
    ledger: Ledger, request: Request, model: str, metered: Metered, *, is_batch: bool
) -> Meter:
    body = request.body if isinstance(request.body, dict) else {}
    tier = body.get("service_tier")
    return Meter(
        ledger,
        request.caller,
        kind=metered.kind,
        model=model,
        service_tier=tier if isinstance(tier, str) and tier != "auto" else "default",
        is_batch=is_batch,
        detail=metered.detail(request),
    )


def _count(watched: Watched, meter: Meter, units: int) -> None:
    """Counts an answer that was good, with the tokens that an upstream tells at its end; a local
    model has counted its own."""
    if not watched.is_good:
        return
    if meter.tokens is None and (told := watched.usage()):
        meter.used(
            input_tokens=told.input_tokens,
            cached_tokens=told.cached_tokens,
            output_tokens=told.output_tokens,
        )
    meter.answered(units)


def _correct(taken: Taken | None, watched: Watched, meter: Meter) -> None:
    """Gives back what was taken and not used. What nobody tells is as it was reckoned."""
    if taken is None:
        return
    if not watched.is_good:
        taken.correct(meter.tokens or 0)
    elif meter.tokens is not None:
        taken.correct(meter.tokens)


def _estimate(request: Request, body: Mapping[str, Any]) -> int:
    """The tokens that a request may take: those of its body, and those that it allows an answer."""
    wanted = [body[name] for name in _ANSWER_TOKENS if isinstance(body.get(name), int)]
    return max(1, len(request.raw_body) // CHARACTERS_A_TOKEN) + (wanted[0] if wanted else 0)


def _check_slots(slots: Slots) -> None:
    if slots.running >= slots.most:
        raise RequestsLimited(
            f"{slots.scope} has {slots.running} requests running; it may have {slots.most} at "
            "once. Wait for one to end.",
            retry_after_s=BUSY_S,
            more_headers={},
        )
