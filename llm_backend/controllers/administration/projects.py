"""Projects: owners of API keys, limits, usage and stored objects."""

import time
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llm_backend.access import DEFAULT_PROJECT
from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    audit_entry,
    project_of,
)
from llm_backend.controllers.administration.records.resource import Resource
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

PROJECTS = Resource(kind=resource_kinds.PROJECT, name="project", id_prefix="proj_")


async def list_projects(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects`"""
    query: api.ListProjectsQuery = request.query
    with_archived = query.get("include_archived", False)
    return await PROJECTS.list(
        services,
        request,
        project_object,
        matches=lambda project: with_archived or project.body.get("archived_at") is None,
    )


async def create_project(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects`"""
    body: api.ProjectCreateRequest = request.body
    _refuse_unsupported(body)
    project = PROJECTS.new({"name": _name(body["name"]), "archived_at": None})
    entry = audit_entry(
        request, "project.created", project.id, project_id=project.id, data={"name": body["name"]}
    )
    await PROJECTS.add(services, entry, project)
    return JsonResponse(project_object(project))


async def retrieve_project(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}`"""
    return JsonResponse(project_object(await project_of(services, request)))


async def modify_project(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}`"""
    body: api.ProjectUpdateRequest = request.body
    _refuse_unsupported(body)
    project = await project_of(services, request, must_be_active=True)
    name = body.get("name")
    if name is None:
        return JsonResponse(project_object(project))
    return await _alter(services, request, "project.updated", name=_name(name))


async def archive_project(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/archive`: its keys are refused from now on."""
    if request.path["project_id"] == DEFAULT_PROJECT:
        raise InvalidRequest("The default project cannot be archived.", param="project_id")
    await project_of(services, request, must_be_active=True)
    return await _alter(services, request, "project.archived", archived_at=int(time.time()))


def project_object(project: Record) -> "api.Project":
    """Renders a project."""
    archived_at = project.body.get("archived_at")
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.body["name"],
        "created_at": project.created_at,
        "archived_at": archived_at,
        "status": "active" if archived_at is None else "archived",
        "external_key_id": None,
        "residency": "GLOBAL",
    }


async def _alter(services: Services, request: ApiRequest, type: str, **values: Any) -> Response:
    id = request.path["project_id"]
    requested = {"title": values["name"]} if "name" in values else None
    entry = audit_entry(request, type, id, project_id=id, requested=requested)
    return JsonResponse(project_object(await PROJECTS.alter(services, entry, id, **values)))


def _name(name: str) -> str:
    if not name.strip():
        raise InvalidRequest("`name` must not be empty.", param="name")
    return name


def _refuse_unsupported(
    body: "api.ProjectCreateRequest | api.ProjectUpdateRequest",
) -> None:
    if body.get("residency") not in (None, "GLOBAL"):
        raise UnsupportedField(
            "The operator decides where data is stored: leave `residency` out.",
            param="residency",
        )
    if body.get("geography") is not None:
        raise UnsupportedField(
            "The operator decides where data is stored: leave `geography` out.", param="geography"
        )
    if body.get("external_key_id") is not None:
        raise UnsupportedField(
            "This server uses no external keys: leave `external_key_id` out.",
            param="external_key_id",
        )
