"""Vector store search."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.request_values import condition_from, ranking_from
from llm_backend.controllers.vector_stores.response_objects import results_page
from llm_backend.controllers.vector_stores.retrieval.hybrid_search import Query, find_stores, search
from llm_backend.controllers.vector_stores.retrieval.query_rewriting import rewrite_queries
from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

DEFAULT_LIMIT = 10  # OpenAI's
QUERIES_LIMIT = 16


@local_or_upstream("vector store", "vector_store_id")
async def search_vector_store(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores/{vector_store_id}/search`. With `rewrite_query` the model of the setting
    `query_model` rewrites the queries; `search_query` returns the queries that were used."""
    body: api.VectorStoreSearchRequest = request.body
    queries = [body["query"]] if isinstance(body["query"], str) else list(body["query"])
    if not 1 <= len(queries) <= QUERIES_LIMIT or not all(query.strip() for query in queries):
        raise InvalidRequest(
            f"`query` must be 1 to {QUERIES_LIMIT} texts that are not empty.", param="query"
        )
    weights, least_score = ranking_from(body.get("ranking_options"))
    query = Query(
        texts=queries,
        limit=int(body.get("max_num_results") or DEFAULT_LIMIT),
        condition=condition_from(body.get("filters")),
        weights=weights,
        least_score=least_score,
    )
    store_ids = [request.path["vector_store_id"]]
    query_model = services.settings.query_model
    if body.get("rewrite_query") and query_model is not None:
        await find_stores(services.vector_stores, store_ids)  # before the model generates
        rewriting = rewrite_queries(services.registry, query_model, queries, request.meter)
        query = query.with_texts(await cancel_on_disconnect(request, rewriting))
    searching = search(services.vector_stores, store_ids, query, request.meter)
    hits = await cancel_on_disconnect(request, searching)
    return JsonResponse(results_page(query.texts, hits))
