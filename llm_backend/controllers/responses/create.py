"""Creates responses, by a local model or relayed, and counts their input tokens."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend import errors
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.relay.routing import UpstreamHandler, answer_by_route, relay_operation
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.obfuscation import obfuscation_for
from llm_backend.controllers.responses.background.queueing import (
    FROM_THE_START,
    queue_response,
)
from llm_backend.controllers.responses.input.chat_request import translate_error_paths
from llm_backend.controllers.responses.input.resolved_request import open_request
from llm_backend.controllers.responses.input.truncation import truncate
from llm_backend.controllers.responses.loop.response_turn import ResponseTurn
from llm_backend.controllers.responses.relayed_background import relay_response
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_response(services: Services, request: ApiRequest) -> Response:
    """`POST /responses`"""
    if request.query.get("beta") or request.body.get("model") is None:
        return await relay_without_model(services, request, relay_with=relay_response)
    return await answer_by_route(
        services, request, local=_answer, relay_with=relay_response, bridged=_answer
    )


async def _answer(
    services: Services, request: ApiRequest, model: LocalModel | BridgedModel
) -> Response:
    body: api.CreateResponse = request.body
    if body.get("background") and isinstance(model, LocalModel):
        return await _in_background(services, request, model)
    turn = await cancel_on_disconnect(request, ResponseTurn.begin(services, model, body))
    if body.get("stream"):
        return await event_stream(turn.events(), ending=b"", failure=turn.error_event)
    return JsonResponse(await cancel_on_disconnect(request, turn.response()))


async def getinputtokencounts(services: Services, request: ApiRequest) -> Response:
    """`POST /responses/input_tokens`"""
    if request.query.get("beta") or (request.body or {}).get("model") is None:
        return await relay_without_model(services, request)
    return await answer_by_route(services, request, local=_count_input, bridged=_refuse_count)


async def _count_input(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    async with open_request(services, model, request.body) as resolved:
        resolved = await resolved.with_retrieval(services, model.vector_stores)
        with translate_error_paths(resolved.tool_indices):
            resolved = await truncate(model, resolved)
            count = await model.count_prompt_tokens(await resolved.chat_after(()))
    answer: api.TokenCountsResource = {"object": "response.input_tokens", "input_tokens": count}
    return JsonResponse(answer)


async def _refuse_count(services: Services, request: ApiRequest, model: BridgedModel) -> Response:
    raise errors.UnsupportedField(
        f"`{request.body['model']}` is the model of an upstream without the operation; its tokens "
        "cannot be counted here.",
        param="model",
    )


async def _in_background(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateResponse = request.body
    response = await queue_response(services, model, body, request.caller)
    if not body.get("stream"):
        return JsonResponse(response)
    options, usual = body.get("stream_options"), services.settings.obfuscate_streams
    obfuscation = obfuscation_for(options, default=usual)
    follower = services.background.follow(response["id"], FROM_THE_START, obfuscation)
    return await event_stream(follower.events(), ending=b"", failure=follower.failure)


async def relay_without_model(
    services: Services, request: ApiRequest, *, relay_with: UpstreamHandler = relay
) -> Response:
    """Relays a request without a model, or with `beta`, to an upstream. Raises `InvalidRequest` or
    `UnsupportedField` if no upstream is configured."""
    if services.upstreams is not None:
        return await relay_operation(services, request, relay_with=relay_with)
    if request.query.get("beta"):
        raise errors.UnsupportedField("OpenAI's beta is not offered here.", param="beta")
    raise errors.InvalidRequest(
        "`model` is missing: see GET /v1/models.",
        param="model",
        code="missing_required_parameter",
    )
