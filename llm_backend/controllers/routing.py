"""Who answers a request for a model: the steps of its name, each where those before could not."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from starlette.responses import Response

from llm_backend.backends.local import LocalModel
from llm_backend.backends.registry import Step, UpstreamModel
from llm_backend.contract.request import Request
from llm_backend.controllers.relay import Destination, model_named, relay
from llm_backend.controllers.relayed_form import FormHead, read_form_head, with_form
from llm_backend.controllers.services import Services
from llm_backend.errors import Overloaded, RateLimited, UpstreamError

__all__ = ["There", "operation_of", "relay_operation", "routed"]

log = logging.getLogger(__name__)

Here = Callable[[Services, Request, LocalModel], Awaitable[Response]]

# What says that somebody else may answer: load and outage. A request that is wrong is wrong here.
_PASSED_ON = (Overloaded, RateLimited, UpstreamError)


class There(Protocol):
    """How a request is sent to an upstream: `relay`, or what remembers beside it."""

    def __call__(
        self, services: Services, request: Request, *, to: Destination
    ) -> Awaitable[Response]: ...


async def relay_operation(services: Services, request: Request) -> Response:
    """Any operation that the table gives to the upstreams: by the model that it names, if any."""
    if services.upstream is None:
        return await relay(services, request)
    head = await read_form_head(request.http)
    name = model_named(request) if head is None else head.model
    steps = _upstream_steps(services, request, name)
    if head is not None:
        return await _relay_form(services, request, head, steps)
    if not steps:
        return await relay(services, request)
    return await _first_answer(services, request, steps, here=_nobody_is_here, there=relay)


async def _relay_form(
    services: Services, request: Request, head: FormHead, steps: Sequence[Step]
) -> Response:
    """A form passes as it comes, so only the first step can have it."""
    if not steps:
        return await relay(services, replace(request, http=with_form(request.http, head, None)))
    step = steps[0]
    assert isinstance(step, UpstreamModel), "the others are left out"
    name = None if step.model == head.model else step.model
    whole = replace(request, http=with_form(request.http, head, name))
    return await relay(services, whole, to=Destination(model=step.model, upstream=step.upstream))


def _upstream_steps(services: Services, request: Request, name: str | None) -> Sequence[Step]:
    """The upstreams among a name's steps; none where an upstream must say what it makes of it."""
    if name is None:
        return ()
    steps = services.registry.steps(name, operation_of(request))
    return [step for step in steps if isinstance(step, UpstreamModel)]


async def _nobody_is_here(*_: object) -> Response:
    raise AssertionError("steps of an operation that is not answered here are upstreams")


async def routed(
    services: Services, request: Request, *, here: Here, there: There = relay
) -> Response:
    """The answer of the first step that can give one: `here` of local models, `there` of upstreams.

    Falls back on overload and outage before anything of an answer was sent. Raises what the last
    step raises, and `ModelNotFound`.
    """
    steps = services.registry.steps(request.body["model"], operation_of(request))
    return await _first_answer(services, request, steps, here=here, there=there)


async def _first_answer(
    services: Services, request: Request, steps: Sequence[Step], *, here: Here, there: There
) -> Response:
    for step in steps[:-1]:
        try:
            return await _taken(services, request, step, here, there, has_other=True)
        except _PASSED_ON as error:
            told = {"model": _name(step), "code": error.code, "request_id": request.request_id}
            log.warning("fell_back", extra=told)
    return await _taken(services, request, steps[-1], here, there, has_other=False)


def operation_of(request: Request) -> tuple[str, str]:
    """By what names the settings may give an operation to an upstream."""
    return request.operation.operation_id, request.operation.tag


def _name(step: Step) -> str:
    return step.card.id if isinstance(step, LocalModel) else step.model


async def _taken(
    services: Services,
    request: Request,
    step: Step,
    here: Here,
    there: There,
    *,
    has_other: bool,
) -> Response:
    if isinstance(step, LocalModel):
        return await here(services, request, step)
    to = Destination(model=step.model, upstream=step.upstream, has_other=has_other)
    return await there(services, request, to=to)
