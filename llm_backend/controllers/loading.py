"""Local models into memory and out of it, by people who will not wait for a request to do it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from llm_backend.backends.berth import ModelState
from llm_backend.backends.local import LocalModel
from llm_backend.contract.leaving import unless_gone
from llm_backend.contract.request import Request
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.render import model_object
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest

__all__ = [
    "load_model",
    "load_model_by_name",
    "unload_model",
    "unload_model_by_name",
    "unload_models",
]


async def load_model(services: Services, request: Request) -> Response:
    """`POST /models/{model}/load`"""
    return await _loaded(services, request, request.path["model"])


async def load_model_by_name(services: Services, request: Request) -> Response:
    """`POST /loadModel`"""
    return await _loaded(services, request, request.body["model"])


async def unload_model(services: Services, request: Request) -> Response:
    """`POST /models/{model}/unload`"""
    model = _local(services, request.path["model"])
    await unless_gone(request, model.unload())
    return JsonResponse(_told(services, model))


async def unload_model_by_name(services: Services, request: Request) -> Response:
    """`POST /unloadModel`"""
    name = (request.body or {}).get("model")
    models = _in_memory(services) if name is None else [_local(services, name)]
    return await _unloaded(services, request, models)


async def unload_models(services: Services, request: Request) -> Response:
    """`GET /unloadModel`"""
    return await _unloaded(services, request, _in_memory(services))


async def _loaded(services: Services, request: Request, name: str) -> Response:
    model = _local(services, name)
    personality = (request.body or {}).get("personality")
    if personality is not None:
        model.check_personality(personality)
    await unless_gone(request, model.load())
    if personality is not None:
        await services.choose_personality(model.card.id, personality)
    return JsonResponse(_told(services, model))


async def _unloaded(services: Services, request: Request, models: list[LocalModel]) -> Response:
    async def all_of_them() -> None:
        await asyncio.gather(*(model.unload() for model in models))

    await unless_gone(request, all_of_them())
    return JsonResponse({"object": "list", "data": [_told(services, one) for one in models]})


def _in_memory(services: Services) -> list[LocalModel]:
    away = ModelState.UNLOADED
    return [model for model in services.registry.local if model.state is not away]


def _local(services: Services, name: str) -> LocalModel:
    model = services.registry.for_model(name)
    if model is None:
        raise InvalidRequest(
            f"`{name}` is no local model: only those are loaded and unloaded here.", param="model"
        )
    return model


def _told(services: Services, model: LocalModel) -> Mapping[str, Any]:
    return model_object(services.registry.card(model))
