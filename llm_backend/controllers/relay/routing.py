"""Routing of a request by its model: tries the targets of a route in order, with fallback.

Fallback is the outer of two retry layers. The attempts of one target at its upstreams are the inner
one: `backends/upstream/retry_rules.py`.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Protocol

from starlette.responses import Response

from llm_backend.access import fairness_key
from llm_backend.backends.images.image_models import ImageModel, name_of
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import (
    IMAGES,
    ImageServerModel,
    RouteTarget,
    UpstreamModel,
    wrong_operation,
)
from llm_backend.backends.speech import EspeakModel
from llm_backend.backends.upstream.config import WIRES, WireProtocol
from llm_backend.backends.upstream.retry_rules import has_idempotency_key
from llm_backend.contract.forms.form_model import FormHead, rename_form_model
from llm_backend.contract.forms.form_observer import observe_form
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
    "No model of this server transcribes: add a Whisper file, a NeMo model or one that hears to "
    "`models` (docs/audio.md), or set "
    "OPENAI_API_KEY, and OPENAI_BASE_URL for another server than OpenAI's, to relay recordings."
)

_NOTHING_DRAWS = (
    "No model of this server draws images: add one to `models` or an image server to `backends` "
    "(docs/images.md), or set OPENAI_API_KEY, and OPENAI_BASE_URL for another server than "
    "OpenAI's, to relay them."
)

LocalHandler = Callable[[Services, ApiRequest, LocalModel], Awaitable[Response]]

_IMAGE_SIZE = re.compile(rb"auto|\d{1,5}x\d{1,5}")  # the upstream refuses other values
FALLBACK_ERRORS = (ServiceUnavailable, RateLimited, UpstreamError)
"""Errors that the next target might not have: overload and outage, but not an invalid request."""

BridgedHandler = Callable[[Services, ApiRequest, BridgedModel], Awaitable[Response]]

VoiceHandler = Callable[[Services, ApiRequest, EspeakModel], Awaitable[Response]]

ImageHandler = Callable[[Services, ApiRequest, ImageModel], Awaitable[Response]]


class UpstreamHandler(Protocol):
    """Sends a request to an upstream: `relay`, or a function that observes it as well."""

    def __call__(
        self, services: Services, request: ApiRequest, *, to: Destination | None = None
    ) -> Awaitable[Response]: ...


async def relay_operation(
    services: Services, request: ApiRequest, *, relay_with: UpstreamHandler = relay
) -> Response:
    """Relays an operation that the table assigns to upstreams, by the model of the request."""
    if services.upstreams is None:
        return await relay(services, request)
    head = request.form_head
    name = requested_model(request) if head is None else head.model
    targets = _upstream_targets(services, request, name)
    if head is not None:
        return await _relay_form(services, request, head, targets)
    if not targets:
        return await relay_with(services, request)
    handlers = _TargetHandlers(local=_no_local_answer, relay_with=relay_with)
    return await _first_answer(services, request, targets, handlers)


async def answer_transcription_by_route(
    services: Services, request: ApiRequest, *, local: LocalHandler
) -> Response:
    """Returns the answer to a form of the local model that it names, else of an upstream. There is
    no fallback, because a form can be read only once. Raises `ModelNotFound`."""
    head = request.form_head
    if head is None or head.model is None:
        raise await _missing_model(services, request)
    transcribers = [one for one in services.registry.local if one.can_transcribe]
    if services.upstreams is None and not transcribers:
        raise Unsupported(_NOTHING_TRANSCRIBES + _transcription_extra_hint(), param="model")
    targets = services.registry.targets(head.model, operation_names(request))
    handlers = _TargetHandlers(local=local, relay_with=relay)
    return await _answer_form(services, request, head, targets, handlers)


async def answer_image_by_route(
    services: Services, request: ApiRequest, *, image: ImageHandler
) -> Response:
    """Returns the answer to an operation on images, of the model that the request names: on an
    image server, on this machine, or at an upstream. There is no fallback for a form, because it
    can be read only once. Raises `ModelNotFound`, and `Unsupported` if nothing draws."""
    if services.upstreams is None and not services.image_models.has_any:
        raise Unsupported(_NOTHING_DRAWS)
    head = request.form_head
    targets = _image_targets(
        services, request, requested_model(request) if head is None else head.model
    )
    if not targets:
        return await relay(services, request)
    handlers = _TargetHandlers(local=partial(_draw_locally, image), relay_with=relay, image=image)
    if head is not None:
        return await _answer_form(services, request, head, targets, handlers)
    return await _first_answer(services, request, targets, handlers)


def _image_targets(
    services: Services, request: ApiRequest, name: str | None
) -> Sequence[RouteTarget]:
    """Returns the targets of a model's name. Without a name, the request goes to the image server
    that is the default, else to an upstream, else to the only local model that draws."""
    operation = operation_names(request)
    if name is not None:
        return services.registry.targets(name, operation)
    default = services.image_models.default(operation, has_upstream=services.upstreams is not None)
    return () if default is None else [default]


async def _draw_locally(
    image: ImageHandler, services: Services, request: ApiRequest, model: LocalModel
) -> Response:
    if model.image_setup is None:
        raise InvalidRequest(f"`{model.card.id}` {model.purpose}; it cannot draw.", param="model")
    return await image(services, request, model)


def _transcription_extra_hint() -> str:
    if is_installed("transcription"):
        return ""
    return f" That needs an extra, which is not installed: {install_command('transcription')}."


async def _missing_model(services: Services, request: ApiRequest) -> InvalidRequest:
    """Returns the error of a form without a model. Reads the form first, so that an error of
    another field is raised instead."""
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
    targets: Sequence[RouteTarget],
    handlers: "_TargetHandlers",
) -> Response:
    """Returns the answer of the first target."""
    if isinstance(targets[0], UpstreamModel):
        return await _relay_form(services, request, head, targets)
    return await handlers.answer(services, request, targets[0], has_fallback=False)


async def _relay_form(
    services: Services, request: ApiRequest, head: FormHead, targets: Sequence[RouteTarget]
) -> Response:
    """Relays a form to the first target. There is no fallback, because the form is streamed."""
    request, images = _observe_images(request)
    response = await _relay_to_first_target(services, request, head, targets)
    if images and response.status_code == HTTPStatus.OK:
        request.meter.count_units(images[-1] - 1)  # the request counts as one
    return response


def _observe_images(request: ApiRequest) -> tuple[ApiRequest, list[int]]:
    """Returns the request of a form, and a list to which the number of requested images is added
    while the form is read; the meter gets their size. Forms of other operations add none."""
    images: list[int] = []
    if request.operation.tag != IMAGES:
        return request, images

    def add(name: str, value: bytes) -> None:
        if name == "size":
            if _IMAGE_SIZE.fullmatch(value):
                request.meter.set_detail(value.decode())
        elif value.isdigit() and len(value) < 5:  # the upstream refuses other values
            images.append(int(value))

    return replace(request, http=observe_form(request.http, {"n", "size"}, add)), images


async def _relay_to_first_target(
    services: Services, request: ApiRequest, head: FormHead, targets: Sequence[RouteTarget]
) -> Response:
    if not targets:
        return await relay(services, request)
    target = targets[0]
    assert isinstance(target, UpstreamModel), "these targets are upstreams"
    await _switch_model(request, target)
    if target.model != head.model:
        request = replace(request, http=rename_form_model(request.http, head, target.model))
    return await relay(
        services, request, to=Destination(model=target.model, upstream=target.upstream)
    )


def _upstream_targets(
    services: Services, request: ApiRequest, name: str | None
) -> Sequence[RouteTarget]:
    """Returns the upstreams among a route's targets; none means the default upstream."""
    if name is None:
        return ()
    targets = services.registry.targets(name, operation_names(request))
    return [target for target in targets if isinstance(target, UpstreamModel)]


async def _no_local_answer(*_: object) -> Response:
    raise AssertionError("all targets of a relayed operation are upstreams")


async def answer_by_route(
    services: Services,
    request: ApiRequest,
    *,
    local: LocalHandler,
    relay_with: UpstreamHandler = relay,
    bridged: BridgedHandler | None = None,
    voice: VoiceHandler | None = None,
) -> Response:
    """Returns the answer of the first target that succeeds: `local` for local models, `relay_with`
    for upstreams, `bridged` for upstreams that support only another operation, `voice` for
    `builtin-voice`. Known elsewhere as failover.

    Falls back on overload and outage before any part of an answer was sent. Raises the error of
    the last target, and `ModelNotFound`.
    """
    targets = services.registry.targets(request.body["model"], operation_names(request))
    handlers = _TargetHandlers(local=local, relay_with=relay_with, bridged=bridged, voice=voice)
    return await _first_answer(services, request, targets, handlers)


async def _first_answer(
    services: Services,
    request: ApiRequest,
    targets: Sequence[RouteTarget],
    handlers: "_TargetHandlers",
) -> Response:
    for target in targets[:-1]:
        try:
            return await handlers.answer(services, request, target, has_fallback=True)
        except FALLBACK_ERRORS as error:
            is_processed = isinstance(error, UpstreamError) and error.may_be_processed
            if is_processed and _is_at_most_once(request):
                raise
            fields = {"model": _name(target), "code": error.code, "request_id": request.request_id}
            log.warning("fell_back", extra=fields)
    return await handlers.answer(services, request, targets[-1], has_fallback=False)


def _is_at_most_once(request: ApiRequest) -> bool:
    """Returns True if no target may get the request after another one may have processed it."""
    return has_idempotency_key(request.http.headers.raw)


def operation_names(request: ApiRequest) -> tuple[str, str]:
    """Returns the names by which settings assign an operation to an upstream: its id and tag."""
    return request.operation.operation_id, request.operation.tag


def _name(target: RouteTarget) -> str:
    if isinstance(target, UpstreamModel | ImageServerModel):
        return target.model or ""
    return target.card.id


async def _switch_model(request: ApiRequest, target: RouteTarget) -> None:
    if request.meter is not None:  # None for relayed operations that call no model
        await request.meter.switch_model(_name(target))


async def _resolve(services: Services, request: ApiRequest, target: ImageServerModel) -> ImageModel:
    """Returns the target as a model with the id that its image server lists. The request may have
    named it by its title, or not at all: raises `Forbidden` if the caller may not use that id."""
    try:
        found = await services.image_models.resolve(target, operation_names(request))
    except UpstreamError as error:
        error.may_be_processed = False  # only lists and options of the server were asked for
        raise
    if name_of(found) != target.model and request.caller is not None:
        services.access.admission.check(request.caller, name_of(found))
    return found


@dataclass(frozen=True, kw_only=True)
class _TargetHandlers:
    """Handlers of one operation, by kind of target."""

    local: LocalHandler
    relay_with: UpstreamHandler
    bridged: BridgedHandler | None = None
    voice: VoiceHandler | None = None
    image: ImageHandler | None = None

    async def answer(
        self, services: Services, request: ApiRequest, target: RouteTarget, *, has_fallback: bool
    ) -> Response:
        """Returns the answer of one target, whose model is charged. Raises `RateLimited` if the
        limits of that model are exceeded."""
        if isinstance(target, ImageServerModel):
            if self.image is None:
                raise wrong_operation(target)
            model = await _resolve(services, request, target)
            await _switch_model(request, model)
            return await self.image(services, request, model)
        await _switch_model(request, target)
        if isinstance(target, LocalModel):
            return await self.local(services, request, target.with_meter(request.meter))
        if isinstance(target, EspeakModel):
            if self.voice is None:
                raise wrong_operation(target)
            return await self.voice(services, request, target)
        to = Destination(
            model=target.model,
            upstream=target.upstream,
            has_fallback=has_fallback,
            is_at_most_once=_is_at_most_once(request),
        )
        other = _other_wire(services, request, target) if self.bridged else None
        if self.bridged is None or other is None:
            return await self.relay_with(services, request, to=to)
        assert services.upstreams is not None, "a target of an upstream needs one"
        operation = operation_names(request)
        bridged_model = BridgedModel(
            services.upstreams,
            to,
            request.body,
            other,
            operation,
            fairness_key=fairness_key(request.caller),
            meter=request.meter,
            message_tokens=services.settings.messages_max_tokens,
        )
        return await self.bridged(services, request, bridged_model)


def _other_wire(
    services: Services, request: ApiRequest, target: UpstreamModel
) -> WireProtocol | None:
    """Returns the wire protocol for a target without that of the operation; None if it has it."""
    operation = operation_names(request)
    own = WIRES.get(operation[0])
    upstreams = services.upstreams
    if own is None or upstreams is None:
        return None
    for wire in (own, WireProtocol.CHAT, WireProtocol.RESPONSES, WireProtocol.MESSAGES):
        if upstreams.any_speaks(wire, target.model, target.upstream, operation):
            return None if wire is own else wire
    raise AssertionError("an upstream answers chats, responses or messages")
