"""Hosted tool permissions of a project."""

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import project_of
from llm_backend.controllers.administration.records.single_settings import put_setting, setting_of
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

TOOLS: Final = ("file_search", "web_search", "image_generation", "mcp", "code_interpreter")


async def retrieve_project_hosted_tool_permissions(
    services: Services, request: ApiRequest
) -> Response:
    """`GET /organization/projects/{project_id}/hosted_tool_permissions`"""
    project = await project_of(services, request)
    setting = await setting_of(services, resource_kinds.HOSTED_TOOLS, project.id) or {}
    return _permissions(setting)


async def update_project_hosted_tool_permissions(
    services: Services, request: ApiRequest
) -> Response:
    """`POST /organization/projects/{project_id}/hosted_tool_permissions`: a partial update."""
    project = await project_of(services, request, must_be_active=True)
    body: api.ProjectHostedToolPermissionsUpdateRequest = request.body
    setting = await put_setting(
        services,
        request,
        resource_kinds.HOSTED_TOOLS,
        {tool: body[tool] for tool in TOOLS if body.get(tool) is not None},
        type="project.updated",
        project_id=project.id,
        is_partial=True,
    )
    return _permissions(setting)


def _permissions(setting: JsonMapping) -> JsonResponse:
    return JsonResponse({tool: setting.get(tool, {"enabled": True}) for tool in TOOLS})
