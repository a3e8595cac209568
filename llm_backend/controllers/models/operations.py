"""Model operations: one list of local models, aliases, routes and upstream models."""

from starlette.responses import Response

from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.rendering.chunks import model_object
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import Forbidden, Internal, ModelNotFound
from llm_backend.model_files import remove_model
from llm_backend.offload import offload


async def list_models(services: Services, request: ApiRequest) -> Response:
    """`GET /models`: local models first; an upstream that is down hides only its own models.
    Models that the caller's project may not use are left out."""
    local = [model_object(card) for card in services.registry.local_cards()]
    upstream = await services.registry.upstream_models()
    admission, caller = services.access.admission, request.caller
    data = [one for one in (*local, *upstream) if admission.may_use(caller, one["id"])]
    return JsonResponse({"object": "list", "data": data})


async def post_models(services: Services, request: ApiRequest) -> Response:
    """`POST /models`: the same list, for clients that only send POST requests."""
    return await list_models(services, request)


async def retrieve_model(services: Services, request: ApiRequest) -> Response:
    """`GET /models/{model}`"""
    name = request.path["model"]
    if not services.access.admission.may_use(request.caller, name):
        raise ModelNotFound(name)
    for card in services.registry.local_cards():
        if card.id == name:
            return JsonResponse(model_object(card))
    if services.registry.is_voice(name):  # one that is not installed
        raise ModelNotFound(name)
    if services.registry.is_image_model(name):
        listed = await services.registry.image_models()
        found = next((one for one in listed if one["id"] == name), None)
        if found is None:
            raise ModelNotFound(name)
        return JsonResponse(found)
    return await relay(services, request, to=Destination(model=name))


async def delete_model(services: Services, request: ApiRequest) -> Response:
    """`DELETE /models/{model}`: a model of the served folder is unloaded, and its file removed, by
    an administrator; other local models are the settings'. Models elsewhere: relayed to the
    upstream."""
    name = request.path["model"]
    services.registry.targets(name)  # raises if no model has the name
    registry = services.registry
    cards = [*registry.local_cards(), *(one.card for one in registry.local)]  # without extras, too
    card = next((card for card in cards if card.id == name), None)
    if card is None and services.registry.is_image_model(name):
        raise Forbidden(f"The model `{name}` is an image server's: delete it there.", param="model")
    if card is None:
        return await relay(services, request, to=Destination(model=name))
    file = dict(card.more).get("file")
    model = None if file is None else services.registry.for_model(name)  # a voice has no file
    if file is None or model is None or model.card.id != name:
        raise Forbidden(
            f"The model `{name}` is part of this server's settings and cannot be deleted here; "
            "take it out of `--model`, `--alias` or `routes` and start again.",
            param="model",
        )
    if not request.caller.may_administer:
        raise Forbidden(f"Only administrators remove the model `{name}`.", param="model")
    folder = services.settings.models_folder
    await cancel_on_disconnect(request, model.unload())
    try:
        await offload(remove_model, folder / file, folder)
    except OSError as error:
        raise Internal(f"The file of the model `{name}` cannot be removed: {error}.") from error
    return JsonResponse({"id": name, "object": "model", "deleted": True})
