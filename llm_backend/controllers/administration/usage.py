"""Usage and costs in time buckets: completions, embeddings, images and other kinds."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from llm_backend.access import DEFAULT_PROJECT
from llm_backend.access.usage.prices import Cost, costs_of
from llm_backend.access.usage.spending import PRICED
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.usage_query import (
    COSTS_LIMITS,
    Buckets,
    buckets_of,
    filter_of,
)
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store.administration import UsageSum

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


IMAGES = ("image.generation", "image.edit", "image.variation")

# OpenAI's `group_by` names -> columns of the usage table.
COLUMNS = {
    "project_id": "project_id",
    "user_id": "user_id",
    "api_key_id": "api_key_id",
    "model": "model",
    "batch": "is_batch",
    "service_tier": "service_tier",
    "source": "kind",
    "size": "detail",
    "vector_store_id": "detail",
}


async def usage_vector_stores(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/usage/vector_stores`: the current size, in the bucket of the current time;
    past sizes are not recorded."""
    now = _now()
    query: api.UsageVectorStoresQuery = request.query
    buckets = buckets_of(query, now)
    with translate_store_errors("usage"):
        stored_bytes = await services.access.usage.vector_store_bytes()
    by_project = {owner or DEFAULT_PROJECT: size for owner, size in stored_bytes.items()}
    projects = query.get("project_ids") or by_project
    parts = {project: size for project, size in by_project.items() if project in projects}
    results: list[api.UsageVectorStoresResult] = [
        {"object": "organization.usage.vector_stores.result", "usage_bytes": sum(parts.values())}
    ]
    if "project_id" in (query.get("group_by") or ()):
        results = [
            {**results[0], "usage_bytes": size, "project_id": project}
            for project, size in parts.items()
        ]
    current = [start for start in buckets.starts() if start <= now - 1 < start + buckets.width_s]
    return _answer(buckets, {start: results for start in current if parts})


async def usage_costs(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/costs`: usage at the prices of the settings."""
    query: api.UsageCostsQuery = request.query
    prices = services.settings.prices
    buckets = buckets_of(query, _now(), limits=COSTS_LIMITS)
    columns = _columns(query)
    used = await _sums(services, query, buckets, PRICED, ["model", *columns.values()])
    results: dict[int, dict[tuple[Any, ...], tuple[JsonObject, list[Cost]]]] = {}
    for one in used:
        for cost in costs_of(one, one.group["model"], prices):
            groups = _groups(one, columns)
            if "line_item" in (query.get("group_by") or ()):
                groups["line_item"] = cost.line_item
            bucket = results.setdefault(one.bucket_at, {})
            bucket.setdefault(tuple(groups.values()), (groups, []))[1].append(cost)
    rendered = {
        start: [_costs(groups, costs) for groups, costs in bucket.values()]
        for start, bucket in results.items()
    }
    return _answer(buckets, rendered)


def _operation(
    name: str, amounts: Callable[[UsageSum], JsonObject], kinds: Sequence[str]
) -> Callable[[Services, ApiRequest], Awaitable[Response]]:
    """Returns the operation that lists the `amounts` of usage of these kinds."""

    async def list_usage(services: Services, request: ApiRequest) -> Response:
        query = request.query
        buckets = buckets_of(query, _now())
        columns = _columns(query)
        used = await _sums(services, query, buckets, kinds, list(columns.values()))
        results: dict[int, list[JsonObject]] = {}
        for one in used:
            result = {
                "object": f"organization.usage.{name}.result",
                **amounts(one),
                **_groups(one, columns),
            }
            # The other value of `api_source` names an API that only OpenAI has.
            if "api_source" in (query.get("group_by") or ()):
                result["api_source"] = "unlabeled"
            results.setdefault(one.bucket_at, []).append(result)
        return _answer(buckets, results)

    return list_usage


async def _sums(
    services: Services,
    query: Mapping[str, Any],
    buckets: Buckets,
    kinds: Sequence[str],
    columns: Sequence[str],
) -> Sequence[UsageSum]:
    with translate_store_errors("usage"):
        await services.access.ledger.write()  # flushes the usage that this process buffers
        return await services.access.usage.sums(
            filter_of(query, buckets, kinds), width_s=buckets.width_s, group_by=columns
        )


def _answer(buckets: Buckets, results: Mapping[int, Sequence[JsonMapping]]) -> Response:
    data: list[api.UsageTimeBucket] = [
        {
            "object": "bucket",
            "start_time": max(start, buckets.start_at),
            "end_time": min(start + buckets.width_s, buckets.end_at),
            "results": cast("Any", results.get(start, [])),
        }
        for start in buckets.starts()
    ]
    next_page = buckets.next_page
    answer: api.UsageResponse = {
        "object": "page",
        "data": data,
        "has_more": next_page is not None,
        "next_page": next_page,
    }
    return JsonResponse(answer)


def _costs(groups: JsonObject, costs: Sequence[Cost]) -> JsonObject:
    rendered: JsonObject = {
        "object": "organization.costs.result",
        "amount": {"value": sum(cost.dollars for cost in costs), "currency": "usd"},
        **groups,
    }
    if "line_item" in groups:
        quantity = sum(cost.quantity for cost in costs)
        rendered |= {"quantity": quantity, "quantity_unit": costs[0].unit}
    return rendered


def _completions(used: UsageSum) -> JsonObject:
    tokens = used.tokens
    cached_media = tokens.cached_image_tokens + tokens.cached_audio_tokens
    images = tokens.input_image_tokens - tokens.cached_image_tokens
    audio = tokens.input_audio_tokens - tokens.cached_audio_tokens
    uncached = tokens.input_tokens - tokens.cached_tokens
    output_media = tokens.output_image_tokens + tokens.output_audio_tokens
    return {
        "input_tokens": tokens.input_tokens,
        "input_cached_tokens": tokens.cached_tokens,
        "input_uncached_tokens": uncached,
        "input_text_tokens": uncached - images - audio,
        "input_cached_text_tokens": tokens.cached_tokens - cached_media,
        "input_image_tokens": images,
        "input_cached_image_tokens": tokens.cached_image_tokens,
        "input_audio_tokens": audio,
        "input_cached_audio_tokens": tokens.cached_audio_tokens,
        "output_tokens": tokens.output_tokens,
        "output_text_tokens": tokens.output_tokens - output_media,
        "output_image_tokens": tokens.output_image_tokens,
        "output_audio_tokens": tokens.output_audio_tokens,
        "num_model_requests": used.requests,
    }


def _input_tokens(used: UsageSum) -> JsonObject:
    return {"input_tokens": used.tokens.input_tokens, "num_model_requests": used.requests}


def _units(name: str) -> Callable[[UsageSum], JsonObject]:
    return lambda used: {name: used.units, "num_model_requests": used.requests}


def _requests(name: str) -> Callable[[UsageSum], JsonObject]:
    return lambda used: {name: used.requests}


def _columns(query: Mapping[str, Any]) -> dict[str, str]:
    """Returns the columns of the usage table for the names in `group_by`."""
    return {name: COLUMNS[name] for name in query.get("group_by") or () if name in COLUMNS}


def _groups(used: UsageSum, columns: Mapping[str, str]) -> JsonObject:
    values = {name: used.group[column] for name, column in columns.items()}
    return {name: None if value == "" else value for name, value in values.items()}


def _now() -> int:
    return int(time.time()) + 1  # `end_time` is exclusive, and the current second belongs to it


# `GET /organization/usage/...`: the first argument is the object's name in the document.
usage_completions = _operation("completions", _completions, ["completions"])
get_organization_usage_decisions = _operation("decisions", _completions, ["decisions"])
usage_embeddings = _operation("embeddings", _input_tokens, ["embeddings"])
usage_moderations = _operation("moderations", _input_tokens, ["moderations"])
usage_images = _operation("images", _units("images"), IMAGES)
usage_audio_speeches = _operation("audio_speeches", _units("characters"), ["audio_speeches"])
usage_audio_transcriptions = _operation(  # upstreams do not always report seconds
    "audio_transcriptions", _units("seconds"), ["audio_transcriptions"]
)
usage_code_interpreter_sessions = _operation(
    "code_interpreter_sessions", _requests("num_sessions"), ["code_interpreter_sessions"]
)
usage_file_search_calls = _operation(  # searches of vector stores
    "file_searches", _requests("num_requests"), ["file_search_calls"]
)
usage_web_search_calls = _operation(  # always empty: web searches are not counted
    "web_searches", _requests("num_requests"), []
)
