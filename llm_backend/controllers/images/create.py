"""Operations on images: generation from a text, edits of an image, and its variations."""

from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access import fairness_key
from llm_backend.backends.images.image_models import ImageModel
from llm_backend.backends.images.image_request import ImageRequest
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.images.answers import image_events, images_answer
from llm_backend.controllers.images.drawings import (
    EDIT_FIELDS,
    GENERATION_FIELDS,
    VARIATION_FIELDS,
    ImageStyle,
    check_fields,
    parse_drawing,
    parse_style,
    read_edit_body,
    read_edit_form,
    with_files,
)
from llm_backend.controllers.relay.routing import answer_image_by_route, operation_names
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api
    from llm_backend.controllers.images.drawings import ImageBody


async def create_image(services: Services, request: ApiRequest) -> Response:
    """`POST /images/generations`"""
    return await answer_image_by_route(services, request, image=_generate)


async def create_image_edit(services: Services, request: ApiRequest) -> Response:
    """`POST /images/edits`, with a form or JSON"""
    return await answer_image_by_route(services, request, image=_edit)


async def create_image_variation(services: Services, request: ApiRequest) -> Response:
    """`POST /images/variations`"""
    return await answer_image_by_route(services, request, image=_vary)


async def _generate(services: Services, request: ApiRequest, model: ImageModel) -> Response:
    body: api.CreateImageRequest = request.body
    check_fields(body, GENERATION_FIELDS)
    style = parse_style(body)
    return await _answer(services, request, model, style, _drawing(services, model, body))


async def _edit(services: Services, request: ApiRequest, model: ImageModel) -> Response:
    if request.form is None:
        body: api.EditImageBodyJsonParam = request.body
        check_fields(body, EDIT_FIELDS)
        style, drawing = parse_style(body), _drawing(services, model, body)
        files = await read_edit_body(services, body)
    else:
        form_body: api.CreateImageEditRequest
        form_body, files = await read_edit_form(services, request)
        request.meter.set_detail(form_body.get("size") or "")
        check_fields(form_body, EDIT_FIELDS)
        style, drawing = parse_style(form_body), _drawing(services, model, form_body)
    drawing = await with_files(services, model, drawing, files)
    return await _answer(services, request, model, style, drawing, kind="image_edit")


async def _vary(services: Services, request: ApiRequest, model: ImageModel) -> Response:
    body: api.CreateImageVariationRequest
    body, files = await read_edit_form(services, request)
    request.meter.set_detail(body.get("size") or "")
    check_fields(body, VARIATION_FIELDS)
    generation: api.CreateImageRequest = {
        "prompt": "",
        "n": body.get("n"),
        "size": body.get("size"),
        "response_format": body.get("response_format"),
    }
    style, drawing = parse_style(generation), _drawing(services, model, generation)
    drawing = await with_files(services, model, drawing, files)
    drawing = replace(drawing, mask=None)  # a variation does not depend on transparency
    return await _answer(services, request, model, style, drawing)


def _drawing(services: Services, model: ImageModel, body: "ImageBody") -> ImageRequest:
    return parse_drawing(
        body,
        pixels_limit=services.image_models.pixels_limit(
            model, services.settings.drawn_pixels_limit
        ),
        side_step=services.image_models.side_step(model),
    )


async def _answer(
    services: Services,
    request: ApiRequest,
    model: ImageModel,
    style: ImageStyle,
    drawing: ImageRequest,
    *,
    kind: str = "image_generation",
) -> Response:
    images = services.image_models.draw(
        drawing,
        model,
        operation=operation_names(request),
        fairness_key=fairness_key(request.caller),
        on_abandoned=request.meter.mark_abandoned,
    )
    if style.streams:
        events = image_events(services, images, style, kind=kind)
        response: Response = await cancel_on_disconnect(request, event_stream(events, ending=b""))
    else:
        response = JsonResponse(
            await cancel_on_disconnect(request, images_answer(services, request, images, style))
        )
    if request.form is not None:  # of which the meter has counted one image, without its `n`
        request.meter.count_units(drawing.count - 1)
    return response
