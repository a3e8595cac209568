"""Embeddings of texts, by a local model or by an upstream."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llm_backend.access import Tokens, fairness_key
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.embeddings import embed_locally
from llm_backend.controllers.ollama.options import check_ollama_fields
from llm_backend.controllers.ollama.request import check_enabled, with_known_model
from llm_backend.controllers.relay.relay import Destination
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.upstream_embedder import embed_at
from llm_backend.json_types import JsonMapping, without_nulls

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

# `truncate` has no effect: a text that is too long is refused.
_FIELDS = frozenset({"model", "input", "dimensions", "truncate", "keep_alive", "options"})
_OLDER_FIELDS = frozenset({"model", "prompt", "keep_alive", "options"})


async def create_ollama_embeddings(services: Services, request: ApiRequest) -> Response:
    """`POST /api/embed`"""
    check_enabled(services)
    began_s = time.perf_counter()
    body: api.CreateOllamaEmbeddingsRequest = request.body
    check_ollama_fields(body, _FIELDS)
    fields = {name: body.get(name) for name in ("input", "dimensions")}
    vectors, tokens = await _embed(services, request, fields)
    return JsonResponse(
        {
            "model": body["model"],
            "embeddings": vectors,
            "total_duration": int((time.perf_counter() - began_s) * 1e9),
            "load_duration": 0,  # not measured
            "prompt_eval_count": tokens,
        }
    )


async def create_ollama_embedding(services: Services, request: ApiRequest) -> Response:
    """`POST /api/embeddings`, which older clients send"""
    check_enabled(services)
    body: api.CreateOllamaEmbeddingRequest = request.body
    check_ollama_fields(body, _OLDER_FIELDS)
    vectors, _ = await _embed(services, request, {"input": body["prompt"]})
    return JsonResponse({"embedding": vectors[0]})


async def _embed(
    services: Services, request: ApiRequest, fields: JsonMapping
) -> tuple[Sequence[Any], int]:
    """Returns the vectors of the texts in `fields`, and the number of tokens, which is charged. The
    vectors of a local model are already encoded as JSON."""
    request = with_known_model(services, request)
    texts = fields["input"]
    body = without_nulls(fields)
    body |= {"model": request.body["model"], "input": [texts] if isinstance(texts, str) else texts}
    embedded: tuple[Sequence[Any], int] = ((), 0)

    async def local(services: Services, request: ApiRequest, model: LocalModel) -> Response:
        nonlocal embedded
        embedded = await embed_locally(services, request, model)
        return Response()

    async def upstream(
        services: Services, request: ApiRequest, *, to: Destination | None = None
    ) -> Response:
        nonlocal embedded
        assert services.upstreams is not None
        assert to is not None
        embedded = await cancel_on_disconnect(
            request,
            embed_at(
                services.upstreams,
                {**body, "model": to.model},
                name=to.upstream,
                fairness_key=fairness_key(request.caller),
            ),
        )
        request.meter.count_tokens(Tokens(input_tokens=embedded[1]))
        return Response()

    request = replace(request, body=body)
    await answer_by_route(services, request, local=local, relay_with=upstream)
    return embedded
