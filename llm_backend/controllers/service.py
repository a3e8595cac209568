"""The server's own operations: health, readiness, metrics, and the document it answers by."""

from starlette.responses import Response

from llm_backend.contract.request import Request
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.store_errors import store_errors_translated
from llm_backend.errors import Overloaded

__all__ = ["get_health", "get_metrics", "get_openapi_document", "get_readiness"]

RETRY_AFTER_S = 2.0


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
    return JsonResponse({"status": "ok", "models": models})


async def get_metrics(services: Services, request: Request) -> Response:
    """`GET /metrics`: in the text format of Prometheus."""
    return Response(services.metrics.render(), media_type=services.metrics.media_type)


async def get_openapi_document(services: Services, request: Request) -> Response:
    """`GET /v1/openapi.json`: the document that every request and answer is checked against."""
    return Response(services.document(), media_type="application/json")
