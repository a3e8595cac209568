"""Documents ordered by their relevance to a query."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from llm_backend.access import Tokens, metered
from llm_backend.backends.local import LocalModel
from llm_backend.contract.leaving import unless_gone
from llm_backend.contract.request import Request
from llm_backend.controllers.generation import refuse_others
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.routing import routed
from llm_backend.controllers.services import Services
from llm_backend.engine.messages import Ranked
from llm_backend.errors import InvalidRequest

__all__ = ["create_rerank"]

FIELDS = {"model", "query", "documents", "top_n", "return_documents"}

Document = str | Mapping[str, Any]


async def create_rerank(services: Services, request: Request) -> Response:
    """`POST /rerank`"""
    return await routed(services, request, here=_answered)


async def _answered(services: Services, request: Request, model: LocalModel) -> Response:
    body = request.body
    refuse_others(body, FIELDS)
    documents: Sequence[Document] = body["documents"]
    if len(documents) > (limit := services.settings.inputs_limit):
        raise InvalidRequest(
            f"`documents` holds {len(documents)} documents; it must hold 1 to {limit}.",
            param="documents",
        )
    texts = [one if isinstance(one, str) else one["text"] for one in documents]
    ranked = await unless_gone(request, model.rank(body["query"], texts))
    metered(Tokens(input_tokens=ranked.prompt_tokens))
    return JsonResponse(_answer(body, documents, ranked))


def _answer(
    body: Mapping[str, Any], documents: Sequence[Document], ranked: Ranked
) -> dict[str, Any]:
    """The best `top_n` documents, best first; those that score alike as they came."""
    best_first = sorted(range(len(documents)), key=lambda place: -ranked.scores[place])
    wanted = int(body.get("top_n") or len(documents))
    shows = bool(body.get("return_documents"))
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "object": "list",
        "model": body["model"],
        "results": [
            {"index": place, "relevance_score": ranked.scores[place]}
            | ({"document": _shown(documents[place])} if shows else {})
            for place in best_first[:wanted]
        ],
        "usage": {"prompt_tokens": ranked.prompt_tokens, "total_tokens": ranked.prompt_tokens},
    }


def _shown(document: Document) -> Mapping[str, Any]:
    return {"text": document} if isinstance(document, str) else document
