"""Models: the local ones, aliases, routes, and the upstreams', in one list."""

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.rendering.chunks import model_object
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import Forbidden, ModelNotFound

__all__ = ["delete_model", "list_models", "post_models", "retrieve_model"]


async def list_models(services: Services, request: ApiRequest) -> Response:
    """`GET /models`: local ones first; an upstream that is down hides only its own. What the
    caller's project may not use is left out."""
    own = [model_object(card) for card in services.registry.local_cards()]
    others = await services.registry.upstream_models()
    admission, caller = services.access.admission, request.caller
    data = [one for one in (*own, *others) if admission.may_use(caller, one["id"])]
    return JsonResponse({"object": "list", "data": data})


async def post_models(services: Services, request: ApiRequest) -> Response:
    """`POST /models`: the same, for clients that post whatever they want."""
    return await list_models(services, request)


async def retrieve_model(services: Services, request: ApiRequest) -> Response:
    """`GET /models/{model}`"""
    name = request.path["model"]
    if not services.access.admission.may_use(request.caller, name):
        raise ModelNotFound(name)
    for card in services.registry.local_cards():
        if card.id == name:
            return JsonResponse(model_object(card))
    services.registry.for_model(name)  # raises where nobody answers to the name
    return await relay(services, request, to=Destination(model=name))


async def delete_model(services: Services, request: ApiRequest) -> Response:
    """`DELETE /models/{model}`: the upstream's own; a local model is the operator's to remove."""
    name = request.path["model"]
    services.registry.for_model(name)  # raises where nobody answers to the name
    if any(card.id == name for card in services.registry.local_cards()):
        raise Forbidden(
            f"The model `{name}` is part of this server's settings and cannot be deleted here; "
            "take it out of `--model`, `--alias` or `routes` and start again.",
            param="model",
        )
    return await relay(services, request, to=Destination(model=name))
