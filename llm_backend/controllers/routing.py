"""Who answers a request for a model: the steps of its name, each where those before could not."""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.responses import Response

from llm_backend.backends.local import LocalModel
from llm_backend.backends.registry import Step
from llm_backend.contract.request import Request
from llm_backend.controllers.relay import Destination, relay
from llm_backend.controllers.services import Services
from llm_backend.errors import Overloaded, RateLimited, UpstreamError

__all__ = ["There", "operation_of", "routed"]

log = logging.getLogger(__name__)

Here = Callable[[Services, Request, LocalModel], Awaitable[Response]]

# What says that somebody else may answer: load and outage. A request that is wrong is wrong here.
_PASSED_ON = (Overloaded, RateLimited, UpstreamError)


class There(Protocol):
    """How a request is sent to an upstream: `relay`, or what remembers beside it."""

    def __call__(
        self, services: Services, request: Request, *, to: Destination
    ) -> Awaitable[Response]: ...


async def routed(
    services: Services, request: Request, *, here: Here, there: There = relay
) -> Response:
    """The answer of the first step that can give one: `here` of local models, `there` of upstreams.

    Falls back on overload and outage before anything of an answer was sent. Raises what the last
    step raises, and `ModelNotFound`.
    """
    name = request.body["model"]
    steps = services.registry.steps(name, operation_of(request))
    for step in steps[:-1]:
        try:
            return await _taken(services, request, step, here, there, has_other=True)
        except _PASSED_ON as error:
            told = {"model": name, "code": error.code, "request_id": request.request_id}
            log.warning("fell_back", extra=told)
    return await _taken(services, request, steps[-1], here, there, has_other=False)


def operation_of(request: Request) -> tuple[str, str]:
    """By what names the settings may give an operation to an upstream."""
    return request.operation.operation_id, request.operation.tag


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
