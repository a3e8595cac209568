"""API keys of a project: authorize model requests and access to the project's stored objects."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    project_of,
)
from llm_backend.controllers.administration.records.key_objects import (
    project_key_object,
)
from llm_backend.controllers.administration.records.listing import (
    list_object,
    list_page,
)
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

NOUN = "API key"


async def list_project_api_keys(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/api_keys`"""
    project = await project_of(services, request)
    query: api.ListProjectApiKeysQuery = request.query
    shows = query.get("owner_project_access", "any") != "inactive"
    with translate_store_errors(NOUN):
        page = await list_page(
            query,
            lambda page: services.access.administration.keys(page, project_id=project.id),
            matches=lambda _: shows,  # an owner without access has no keys
        )
        data = [await project_key_object(services, key) for key in page.items]
    return JsonResponse(list_object(data, has_more=page.has_more))


async def retrieve_project_api_key(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/api_keys/{api_key_id}`"""
    project = await project_of(services, request)
    with translate_store_errors(NOUN):
        key = await services.access.administration.key(
            request.path["api_key_id"], project_id=project.id
        )
        return JsonResponse(await project_key_object(services, key))


async def delete_project_api_key(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/projects/{project_id}/api_keys/{api_key_id}`"""
    id, project = request.path["api_key_id"], await project_of(services, request)
    entry = audit_entry(request, "api_key.deleted", id, project_id=project.id)
    async with apply_change(services, NOUN):
        await services.access.administration.key(id, project_id=project.id)
        await services.access.administration.remove_key(entry, id)
    return deleted_response(id, "organization.project.api_key.deleted")
