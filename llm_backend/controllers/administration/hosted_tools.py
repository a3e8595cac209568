"""Hosted tool permissions of a project."""

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import project_of
from llm_backend.controllers.administration.records.single_settings import put_setting, setting_of
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

TOOLS: Final = ("file_search", "web_search", "image_generation", "mcp", "code_interpreter")


async def retrieve_project_hosted_tool_permissions(
    services: Services, request: ApiRequest
) -> Response:
    """`GET /organization/projects/{project_id}/hosted_tool_permissions`"""
    project = await project_of(services, request)
    setting = await setting_of(services, resource_kinds.HOSTED_TOOLS, project.id) or {}
    return JsonResponse({tool: setting.get(tool, {"enabled": True}) for tool in TOOLS})


async def update_project_hosted_tool_permissions(
    services: Services, request: ApiRequest
) -> Response:
    """`POST /organization/projects/{project_id}/hosted_tool_permissions`: a partial update."""
    project = await project_of(services, request, must_be_active=True)
    setting = await setting_of(services, resource_kinds.HOSTED_TOOLS, project.id) or {}
    body: api.ProjectHostedToolPermissionsUpdateRequest = request.body
    requested_limits = {tool: body[tool] for tool in TOOLS if body.get(tool) is not None}
    all_of_them = {tool: setting.get(tool, {"enabled": True}) for tool in TOOLS} | requested_limits
    put = await put_setting(
        services,
        request,
        resource_kinds.HOSTED_TOOLS,
        all_of_them,
        type="project.updated",
        project_id=project.id,
    )
    return JsonResponse(put)
