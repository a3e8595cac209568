"""Reranking: orders documents by their relevance to a query."""

import uuid
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access import Tokens
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.request_translation import check_supported_fields
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.engine.messages import RankScores
from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

FIELDS = {"model", "query", "documents", "top_n", "return_documents"}


async def create_rerank(services: Services, request: ApiRequest) -> Response:
    """`POST /rerank`"""
    return await answer_by_route(services, request, local=_rank)


async def _rank(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateRerankRequest = request.body
    check_supported_fields(body, FIELDS)
    documents = body["documents"]
    if len(documents) > (limit := services.settings.inputs_limit):
        raise InvalidRequest(
            f"`documents` holds {len(documents)} documents; it must hold 1 to {limit}.",
            param="documents",
        )
    texts = [one if isinstance(one, str) else one["text"] for one in documents]
    ranked = await cancel_on_disconnect(request, model.rank(body["query"], texts))
    request.meter.count_tokens(Tokens(input_tokens=ranked.prompt_tokens))
    return JsonResponse(_answer(body, ranked))


def _answer(body: "api.CreateRerankRequest", ranked: RankScores) -> "api.CreateRerankResponse":
    """Renders the best `top_n` documents, best first; equal scores keep the request's order."""
    documents = body["documents"]
    best_first = sorted(range(len(documents)), key=lambda index: -ranked.scores[index])
    count = int(body.get("top_n") or len(documents))
    returns_documents = bool(body.get("return_documents"))
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "object": "list",
        "model": body["model"],
        "results": [
            _result(index, ranked.scores[index], documents[index] if returns_documents else None)
            for index in best_first[:count]
        ],
        "usage": {"prompt_tokens": ranked.prompt_tokens, "total_tokens": ranked.prompt_tokens},
    }


def _result(
    index: int, score: float, document: "str | api.RerankDocument | None"
) -> "api.CreateRerankResponseResult":
    result: api.CreateRerankResponseResult = {"index": index, "relevance_score": score}
    if document is not None:
        result["document"] = {"text": document} if isinstance(document, str) else document
    return result
