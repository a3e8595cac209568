"""Rate limits of a project, one for each model: requests and tokens a minute, requests a day.

If a project has none for a model, the limits of the settings apply. A route has the limits of its
models, and those set for its own name. An absent limit is rendered as `UNLIMITED`, because OpenAI's
document has no other form.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    project_of,
    unique_id,
)
from llm_backend.controllers.administration.records.listing import MAX_PAGE_ITEMS, list_object
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, NotFound, UnsupportedField
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


LIMIT = 100  # entries of a page; OpenAI's default
UNLIMITED = 1_000_000_000
HONOURED = ("max_requests_per_1_minute", "max_tokens_per_1_minute", "max_requests_per_1_day")


async def list_project_rate_limits(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/rate_limits`: by model."""
    project = await project_of(services, request)
    project_limits = _project_limits(services, project.id)
    models = await _models(services, project_limits)
    query: api.ListProjectRateLimitsQuery = request.query
    page, has_more = _page(models, query)
    data = [_limit_object(services, model, project_limits.get(model, {})) for model in page]
    return JsonResponse(list_object(data, has_more=has_more))


async def update_project_rate_limits(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/rate_limits/{rate_limit_id}`"""
    project = await project_of(services, request, must_be_active=True)
    id = request.path["rate_limit_id"]
    project_limits = _project_limits(services, project.id)
    model = id.removeprefix("rl-")
    if model == id or model not in await _models(services, project_limits):
        raise NotFound(f"No rate limit has the id `{id}`.")
    body: api.ProjectRateLimitUpdateRequest = request.body
    requested_limits = _limits_of_body(body)
    record = Record(
        id=unique_id(id, project.id),
        kind=resource_kinds.RATE_LIMIT,
        created_at=int(time.time()),
        project_id=project.id,
        body={"model": model, "limits": requested_limits},
    )
    entry = audit_entry(
        request, "rate_limit.updated", id, project_id=project.id, requested=requested_limits
    )
    async with apply_change(services, "rate limit"):
        stored = await services.access.administration.merge(
            entry, record, lambda one: _with_limits(one, requested_limits)
        )
    return JsonResponse(_limit_object(services, model, stored.body["limits"]))


def _with_limits(record: Record, limits: Mapping[str, int]) -> Record:
    return replace(record, body={**record.body, "limits": {**record.body["limits"], **limits}})


def _project_limits(services: Services, project_id: str) -> Mapping[str, Mapping[str, int]]:
    project = services.access.keyring.policy.projects.get(project_id)
    return project.rate_limits if project else {}


async def _models(services: Services, project_limits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns all served models, without aliases, and models that have limits."""
    names = [card.id for card in services.registry.local_cards()]
    local = [name for name in names if services.access.policies.resolve_alias(name) == name]
    others = [str(model["id"]) for model in await services.registry.upstream_models()]
    return list(dict.fromkeys([*local, *others, *project_limits]))


def _page(models: list[str], query: "api.ListProjectRateLimitsQuery") -> tuple[list[str], bool]:
    limit = query.get("limit", LIMIT)
    if not 0 <= limit <= MAX_PAGE_ITEMS:
        raise InvalidRequest(
            f"`limit` is {limit}; it must be 0 to {MAX_PAGE_ITEMS}.", param="limit"
        )
    first = _page_index(models, query["after"], "after") + 1 if "after" in query else 0
    if "before" in query:
        end = _page_index(models, query["before"], "before")
        return models[max(first, end - limit) : end], end - limit > first
    return models[first : first + limit], len(models) > first + limit


def _page_index(models: list[str], id: str, name: str) -> int:
    model = id.removeprefix("rl-")
    if model not in models:
        raise InvalidRequest(f"`{name}` names `{id}`, which does not exist.", param=name)
    return models.index(model)


def _limits_of_body(body: "api.ProjectRateLimitUpdateRequest") -> dict[str, int]:
    limits = cast("dict[str, int]", body)
    for name, value in limits.items():
        if name not in HONOURED:
            raise UnsupportedField(f"`{name}` is not limited by this server.", param=name)
        if value < 0:
            raise InvalidRequest(f"`{name}` is {value}; it must not be negative.", param=name)
    return dict(limits)


def _limit_object(
    services: Services, model: str, project_limits: Mapping[str, int]
) -> "api.ProjectRateLimit":
    settings, is_route = services.settings, services.access.policies.is_route(model)
    # The default limits apply to the models of a route, and not to the route itself.
    requests = None if is_route else settings.requests_per_minute
    tokens = None if is_route else settings.tokens_per_minute
    defaults: api.ProjectRateLimit = {
        "object": "project.rate_limit",
        "id": f"rl-{model}",
        "model": model,
        "max_requests_per_1_minute": requests or UNLIMITED,
        "max_tokens_per_1_minute": tokens or UNLIMITED,
    }
    return cast("api.ProjectRateLimit", {**defaults, **project_limits})
