"""Data retention: with zero data retention, a project's chats and responses are not stored,
even if a request has `store: true`.
"""

from typing import TYPE_CHECKING, Literal

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import project_of
from llm_backend.controllers.administration.records.single_settings import put_setting, setting_of
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def retrieve_organization_data_retention(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/data_retention`"""
    setting = await setting_of(services, resource_kinds.DATA_RETENTION)
    answer: api.OrganizationDataRetention = {
        "object": "organization.data_retention",
        "type": setting["type"] if setting else _by_settings(services),
    }
    return JsonResponse(answer)


async def update_organization_data_retention(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/data_retention`"""
    body: api.UpdateOrganizationDataRetentionBody = request.body
    setting = {"type": body["retention_type"]}
    put = await put_setting(
        services, request, resource_kinds.DATA_RETENTION, setting, type="organization.updated"
    )
    return JsonResponse({"object": "organization.data_retention", **put})


async def retrieve_project_data_retention(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/data_retention`"""
    project = await project_of(services, request)
    setting = await setting_of(services, resource_kinds.DATA_RETENTION, project.id)
    answer: api.ProjectDataRetention = {
        "object": "project.data_retention",
        "type": setting["type"] if setting else "organization_default",
    }
    return JsonResponse(answer)


async def update_project_data_retention(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/data_retention`"""
    body: api.UpdateProjectDataRetentionBody = request.body
    project = await project_of(services, request, is_changed=True)
    put = await put_setting(
        services,
        request,
        resource_kinds.DATA_RETENTION,
        {"type": body["retention_type"]},
        type="project.updated",
        project_id=project.id,
    )
    return JsonResponse({"object": "project.data_retention", **put})


def _by_settings(
    services: Services,
) -> Literal["zero_data_retention", "modified_abuse_monitoring"]:
    """Maps the setting `store_chats` to OpenAI's type; there is no abuse monitoring here."""
    keeps_nothing = services.settings.store_chats == "never"
    return "zero_data_retention" if keeps_nothing else "modified_abuse_monitoring"
