"""Explicit load and unload of local models; requests also load models on demand."""

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.model_handle import ModelState
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.chunks import model_object
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def load_model(services: Services, request: ApiRequest) -> Response:
    """`POST /models/{model}/load`"""
    return await _load(services, request, request.path["model"])


async def load_model_by_name(services: Services, request: ApiRequest) -> Response:
    """`POST /loadModel`"""
    body: api.LoadModelByNameRequest = request.body
    return await _load(services, request, body["model"])


async def unload_model(services: Services, request: ApiRequest) -> Response:
    """`POST /models/{model}/unload`"""
    model = _local_model(services, request.path["model"])
    await cancel_on_disconnect(request, model.unload())
    return JsonResponse(_model_status(services, model))


async def unload_model_by_name(services: Services, request: ApiRequest) -> Response:
    """`POST /unloadModel`"""
    body: api.UnloadModelByNameRequest = request.body or {}
    name = body.get("model")
    models = _models_in_memory(services) if name is None else [_local_model(services, name)]
    return await _unload(services, request, models)


async def unload_models(services: Services, request: ApiRequest) -> Response:
    """`GET /unloadModel`"""
    return await _unload(services, request, _models_in_memory(services))


async def _load(services: Services, request: ApiRequest, name: str) -> Response:
    model = _local_model(services, name)
    body: api.LoadModelRequest = request.body or {}
    personality = body.get("personality")
    if personality is not None:
        model.check_personality(personality)
    await cancel_on_disconnect(request, model.load())
    if personality is not None:
        await services.choose_personality(model.card.id, personality)
    return JsonResponse(_model_status(services, model))


async def _unload(services: Services, request: ApiRequest, models: list[LocalModel]) -> Response:
    async def unload_all() -> None:
        await asyncio.gather(*(model.unload() for model in models))

    await cancel_on_disconnect(request, unload_all())
    return JsonResponse(
        {"object": "list", "data": [_model_status(services, one) for one in models]}
    )


def _models_in_memory(services: Services) -> list[LocalModel]:
    unloaded = ModelState.UNLOADED
    return [model for model in services.registry.local if model.state is not unloaded]


def _local_model(services: Services, name: str) -> LocalModel:
    model = services.registry.for_model(name)
    if model is None:
        raise InvalidRequest(
            f"`{name}` is not a local model: only those are loaded and unloaded here.",
            param="model",
        )
    return model


def _model_status(services: Services, model: LocalModel) -> JsonObject:
    return model_object(services.registry.card(model))
