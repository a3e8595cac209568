"""Model operations: one list of local models, aliases, routes and upstream models."""

from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.responses import Response

from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.rendering.chunks import model_object
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import Forbidden, Internal, InvalidRequest, ModelNotFound
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.model_files import remove_model
from llm_backend.offload import offload


async def list_models(services: Services, request: ApiRequest) -> Response:
    """`GET /models`: local models first; an upstream that is down hides only its own models.
    Models that the caller's project may not use are left out. With Anthropic's header or query
    parameters, the list has Anthropic's fields, too, and is paged."""
    local = [model_object(card) for card in services.registry.local_cards()]
    upstream = await services.registry.upstream_models()
    admission, caller = services.access.admission, request.caller
    data = [one for one in (*local, *upstream) if admission.may_use(caller, one["id"])]
    if not _is_anthropic(request) and not request.query:
        return JsonResponse({"object": "list", "data": data})
    page, has_more = _page_of(data, request.query)
    answer: JsonObject = {
        "object": "list",
        "data": [_with_anthropic_fields(one) for one in page],
        "has_more": has_more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
    return JsonResponse(answer)


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
            model = model_object(card)
            answer = _with_anthropic_fields(model) if _is_anthropic(request) else model
            return JsonResponse(answer)
    if services.registry.is_voice(name):  # a voice that is not installed
        raise ModelNotFound(name)
    if services.registry.is_image_model(name):
        listed = await services.registry.image_models()
        found = next((one for one in listed if one["id"] == name), None)
        if found is None:
            raise ModelNotFound(name)
        return JsonResponse(found)
    return await relay(services, request, to=Destination(model=name))


async def delete_model(services: Services, request: ApiRequest) -> Response:
    """`DELETE /models/{model}`: unloads a model of the served folder and removes its file, for
    administrators only. Other local models cannot be deleted; for an upstream's model, the request
    is relayed."""
    name = request.path["model"]
    services.registry.targets(name)  # raises if no model has the name
    registry = services.registry
    # `local_cards` lacks models whose extra is missing
    cards = [*registry.local_cards(), *(one.card for one in registry.local)]
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


def _is_anthropic(request: ApiRequest) -> bool:
    return "anthropic-version" in request.http.headers


def _page_of(
    models: Sequence[JsonMapping], query: JsonMapping
) -> tuple[Sequence[JsonMapping], bool]:
    """Returns the models after or before an id, at most `limit`, and whether there are more in this
    direction. Raises `InvalidRequest` for an id that no model has."""
    ids = [model["id"] for model in models]
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in ids:
            raise InvalidRequest(f"No model has the id `{query[name][:64]}`.", param=name)
    first = ids.index(query["after_id"]) + 1 if "after_id" in query else 0
    last = ids.index(query["before_id"]) if "before_id" in query else len(ids)
    found = models[first:last]
    limit = query.get("limit", len(found))
    is_backwards = "before_id" in query and "after_id" not in query
    page = found[max(0, len(found) - limit) :] if is_backwards else found[:limit]
    return page, len(page) < len(found)


def _with_anthropic_fields(model: JsonMapping) -> JsonObject:
    """Returns a model with the fields of Anthropic's list beside OpenAI's."""
    created_at = datetime.fromtimestamp(model["created"], UTC)
    return {
        **model,
        "type": "model",
        "display_name": model["id"],
        "created_at": created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
