"""The server's own operations: health, readiness, metrics, and the document it answers by."""

import asyncio

import msgspec
from starlette.responses import Response

from llm_backend.backends.local import LocalModel
from llm_backend.contract.request import Request
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.store_errors import store_errors_translated
from llm_backend.engine import EngineDown
from llm_backend.errors import Overloaded
from llm_backend.store import check_schema

__all__ = ["get_health", "get_metrics", "get_openapi_document", "get_readiness"]

RETRY_AFTER_S = 2.0
ENGINE_ANSWERS_S = 2.0  # an engine answers between two passes; scrapers wait ten seconds


async def get_health(services: Services, request: Request) -> Response:
    """`GET /healthz`: the process is alive."""
    return JsonResponse({"status": "ok"})


async def get_readiness(services: Services, request: Request) -> Response:
    """`GET /readyz`: a model or an upstream can answer, and the database can be asked."""
    models = {model.card.id: str(model.engine.state) for model in services.registry.local}
    if models and "ready" not in models.values() and services.upstream is None:
        states = ", ".join(f"{name} is {state}" for name, state in models.items())
        raise Overloaded(f"No model can answer yet: {states}.", retry_after_s=RETRY_AFTER_S)
    with store_errors_translated():
        await services.database.check()
        await check_schema(services.database)
    return JsonResponse({"status": "ok", "models": models})


async def get_metrics(services: Services, request: Request) -> Response:
    """`GET /metrics`: in the text format of Prometheus."""
    services.metrics.engines.tell(await _engine_states(services))
    return Response(services.metrics.render(), media_type=services.metrics.media_type)


async def get_openapi_document(services: Services, request: Request) -> Response:
    """`GET /v1/openapi.json`: the document that every request and answer is checked against."""
    return Response(services.document(), media_type="application/json")


async def _engine_states(services: Services) -> dict[str, dict[str, float]]:
    """What the engines that answer in time say of themselves, by model."""
    models = list(services.registry.local)
    states = await asyncio.gather(*(_engine_state(model) for model in models))
    return {model.card.id: state for model, state in zip(models, states, strict=True) if state}


async def _engine_state(model: LocalModel) -> dict[str, float] | None:
    try:
        async with asyncio.timeout(ENGINE_ANSWERS_S):
            status = await model.engine.status()
    except (TimeoutError, EngineDown):  # that it is missing tells it
        return None
    return {name: value for name, value in msgspec.structs.asdict(status).items() if name != "id"}
