"""Routing of a request by its model: tries the steps of a route in order, with fallback."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from starlette.responses import Response

from llm_backend.access import fairness_key
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.picture_models import DrawingModel, name_of
from llm_backend.backends.registry import PictureModel, Step, UpstreamModel, wrong_operation
from llm_backend.backends.speech import VoiceModel
from llm_backend.backends.upstream.config import WIRES, WireProtocol
from llm_backend.contract.forms.form_model import FormHead, rename_form_model
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.relay.relay import Destination, relay, requested_model
from llm_backend.controllers.services import Services
from llm_backend.errors import (
    InvalidRequest,
    RateLimited,
    ServiceUnavailable,
    Unsupported,
    UpstreamError,
)
from llm_backend.extras import install_command, is_installed

log = logging.getLogger(__name__)

_NOTHING_TRANSCRIBES = (
    "No model of this server transcribes: add a Whisper file or a model that hears to "
    "`models` (docs/audio.md), or set "
    "OPENAI_API_KEY, and OPENAI_BASE_URL for another server than OpenAI's, to relay recordings."
)

_NOTHING_DRAWS = (
    "No model of this server draws pictures: add one to `models` or an image server to `backends` "
    "(docs/images.md), or set OPENAI_API_KEY, and OPENAI_BASE_URL for another server than "
    "OpenAI's, to relay them."
)

LocalStep = Callable[[Services, ApiRequest, LocalModel], Awaitable[Response]]

FALLBACK_ERRORS = (ServiceUnavailable, RateLimited, UpstreamError)
"""Errors that the next step might not have: load and outage. An invalid request is none."""

Bridged = Callable[[Services, ApiRequest, BridgedModel], Awaitable[Response]]

VoiceStep = Callable[[Services, ApiRequest, VoiceModel], Awaitable[Response]]

PictureStep = Callable[[Services, ApiRequest, DrawingModel], Awaitable[Response]]


class UpstreamStep(Protocol):
    """Sends a request to an upstream: `relay`, or a function that observes it as well."""

    def __call__(
        self, services: Services, request: ApiRequest, *, to: Destination | None = None
    ) -> Awaitable[Response]: ...


async def relay_operation(
    services: Services, request: ApiRequest, *, relay_with: UpstreamStep = relay
) -> Response:
    """Relays any operation that the table assigns to upstreams, by the model that it names."""
    if services.upstreams is None:
        return await relay(services, request)
    head = request.form_head
    name = requested_model(request) if head is None else head.model
    steps = _upstream_steps(services, request, name)
    if head is not None:
        return await _relay_form(services, request, head, steps)
    if not steps:
        return await relay_with(services, request)
    options = _RouteOptions(local=_no_local_answer, relay_with=relay_with)
    return await _first_answer(services, request, steps, options)


async def answer_form_by_route(
    services: Services, request: ApiRequest, *, local: LocalStep
) -> Response:
    """Returns the answer to a form: of the local model that it names, else of an upstream. Raises
    `ModelNotFound`. Its first step answers, because a form is read only once."""
    head = request.form_head
    if head is None or head.model is None:
        raise await _missing_model(services, request)
    transcribers = [one for one in services.registry.local if one.can_transcribe]
    if services.upstreams is None and not transcribers:
        raise Unsupported(_NOTHING_TRANSCRIBES + _missing_extra(), param="model")
    steps = services.registry.steps(head.model, operation_names(request))
    options = _RouteOptions(local=local, relay_with=relay)
    return await _answer_form(services, request, head, steps, options)


async def answer_image_by_route(
    services: Services, request: ApiRequest, *, picture: PictureStep
) -> Response:
    """Returns the answer to an operation on images: of the model that it names, which is an image
    server's or of this machine, else of an upstream. Raises `Unsupported` without either, and
    `ModelNotFound`. The first step answers a form, because it is read only once."""
    if services.upstreams is None and not services.pictures.are_there:
        raise Unsupported(_NOTHING_DRAWS)
    head = request.form_head
    steps = _image_steps(
        services, request, requested_model(request) if head is None else head.model
    )
    if not steps:
        return await relay(services, request)
    options = _RouteOptions(local=partial(_draw_here, picture), relay_with=relay, picture=picture)
    if head is not None:
        return await _answer_form(services, request, head, steps, options)
    return await _first_answer(services, request, steps, options)


def _image_steps(services: Services, request: ApiRequest, name: str | None) -> Sequence[Step]:
    """Returns the steps of a model's name. Without a name, the request goes to an upstream that has
    the operation; if there is none, to the model that draws without being named."""
    operation = operation_names(request)
    if name is not None:
        return services.registry.steps(name, operation)
    default = services.pictures.default(operation, has_upstream=services.upstreams is not None)
    return () if default is None else [default]


async def _draw_here(
    picture: PictureStep, services: Services, request: ApiRequest, model: LocalModel
) -> Response:
    if model.drawing is None:
        kind = "is a language model" if model.takes_text else "is a model of sound"
        raise InvalidRequest(f"`{model.card.id}` {kind}; it cannot draw.", param="model")
    return await picture(services, request, model)


def _missing_extra() -> str:
    if is_installed("transcription"):
        return ""
    return f" That needs an extra, which is not installed: {install_command('transcription')}."


async def _missing_model(services: Services, request: ApiRequest) -> InvalidRequest:
    """Returns the error of a form without a model, unless another one is raised before."""
    assert request.form is not None, "the operation takes a form"
    part = await request.form.file("file", limit_bytes=services.settings.upload_limit_bytes)
    async for _ in part.pieces:
        pass
    await request.form.fields()
    return InvalidRequest("Missing required parameter: 'model'.", param="model")


async def _answer_form(
    services: Services,
    request: ApiRequest,
    head: FormHead,
    steps: Sequence[Step],
    options: "_RouteOptions",
) -> Response:
    """Returns the answer of the first step."""
    if isinstance(steps[0], UpstreamModel):
        return await _relay_form(services, request, head, steps)
    return await options.answer_step(services, request, steps[0], has_fallback=False)


async def _relay_form(
    services: Services, request: ApiRequest, head: FormHead, steps: Sequence[Step]
) -> Response:
    """Relays a form. It is streamed, so that only the first step can get it."""
    if not steps:
        return await relay(services, request)
    step = steps[0]
    assert isinstance(step, UpstreamModel), "these steps are upstreams"
    await _switch_model(request, step)
    if step.model != head.model:
        request = replace(request, http=rename_form_model(request.http, head, step.model))
    return await relay(services, request, to=Destination(model=step.model, upstream=step.upstream))


def _upstream_steps(services: Services, request: ApiRequest, name: str | None) -> Sequence[Step]:
    """Returns the upstreams among a route's steps; with none, the default upstream is asked."""
    if name is None:
        return ()
    steps = services.registry.steps(name, operation_names(request))
    return [step for step in steps if isinstance(step, UpstreamModel)]


async def _no_local_answer(*_: object) -> Response:
    raise AssertionError("steps of an operation that is not answered here are upstreams")


async def answer_by_route(
    services: Services,
    request: ApiRequest,
    *,
    local: LocalStep,
    relay_with: UpstreamStep = relay,
    bridged: Bridged | None = None,
    voice: VoiceStep | None = None,
) -> Response:
    """Returns the answer of the first step that succeeds: `local` for local models, `relay_with`
    for upstreams, `bridged` for upstreams that support only another operation, `voice` for models
    that speak. Known elsewhere as failover.

    Falls back on overload and outage before any part of an answer was sent. Raises the error of
    the last step, and `ModelNotFound`.
    """
    steps = services.registry.steps(request.body["model"], operation_names(request))
    options = _RouteOptions(local=local, relay_with=relay_with, bridged=bridged, voice=voice)
    return await _first_answer(services, request, steps, options)


async def _first_answer(
    services: Services, request: ApiRequest, steps: Sequence[Step], options: "_RouteOptions"
) -> Response:
    for step in steps[:-1]:
        try:
            return await options.answer_step(services, request, step, has_fallback=True)
        except FALLBACK_ERRORS as error:
            fields = {"model": _name(step), "code": error.code, "request_id": request.request_id}
            log.warning("fell_back", extra=fields)
    return await options.answer_step(services, request, steps[-1], has_fallback=False)


def operation_names(request: ApiRequest) -> tuple[str, str]:
    """Returns the names by which settings assign an operation to an upstream: its id and tag."""
    return request.operation.operation_id, request.operation.tag


def _name(step: Step) -> str:
    if isinstance(step, UpstreamModel | PictureModel):
        return step.model or ""
    return step.card.id


async def _switch_model(request: ApiRequest, step: Step) -> None:
    if request.meter is not None:  # relayed operations that call no model have none
        await request.meter.switch_model(_name(step))


async def _resolve(services: Services, request: ApiRequest, step: PictureModel) -> DrawingModel:
    """Returns the model by the id that its image server lists. Raises `Forbidden` if the caller may
    not use the model that was found by its title, or without a name."""
    found = await services.pictures.resolve(step, operation_names(request))
    if name_of(found) != step.model and request.caller is not None:
        services.access.admission.check(request.caller, name_of(found))
    return found


@dataclass(frozen=True, kw_only=True)
class _RouteOptions:
    """Handlers of one operation, by kind of step."""

    local: LocalStep
    relay_with: UpstreamStep
    bridged: Bridged | None = None
    voice: VoiceStep | None = None
    picture: PictureStep | None = None

    async def answer_step(
        self, services: Services, request: ApiRequest, step: Step, *, has_fallback: bool
    ) -> Response:
        """Returns the answer of one step, charged to that step's model. Raises `RateLimited` if
        the model's limits are exceeded."""
        if isinstance(step, PictureModel):
            if self.picture is None:
                raise wrong_operation(step)
            model = await _resolve(services, request, step)
            await _switch_model(request, model)
            return await self.picture(services, request, model)
        await _switch_model(request, step)
        if isinstance(step, LocalModel):
            return await self.local(services, request, step.with_meter(request.meter))
        if isinstance(step, VoiceModel):
            if self.voice is None:
                raise wrong_operation(step)
            return await self.voice(services, request, step)
        to = Destination(model=step.model, upstream=step.upstream, has_fallback=has_fallback)
        other = _other_wire(services, request, step) if self.bridged else None
        if self.bridged is None or other is None:
            return await self.relay_with(services, request, to=to)
        assert services.upstreams is not None, "a step of an upstream needs one"
        operation = operation_names(request)
        bridged_model = BridgedModel(
            services.upstreams,
            to,
            request.body,
            other,
            operation,
            caller=fairness_key(request.caller),
            meter=request.meter,
            message_tokens=services.settings.messages_max_tokens,
        )
        return await self.bridged(services, request, bridged_model)


def _other_wire(
    services: Services, request: ApiRequest, step: UpstreamModel
) -> WireProtocol | None:
    """Returns the wire protocol for a step that does not support the operation's own; None if it
    does."""
    operation = operation_names(request)
    own = WIRES.get(operation[0])
    upstreams = services.upstreams
    if own is None or upstreams is None:
        return None
    for wire in (own, WireProtocol.CHAT, WireProtocol.RESPONSES, WireProtocol.MESSAGES):
        if upstreams.any_speaks(wire, step.model, step.upstream, operation):
            return None if wire is own else wire
    raise AssertionError("an upstream answers chats, responses or messages")
