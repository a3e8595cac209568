"""Data retention: with zero data retention, a project's chats and responses are not stored,
even if a request has `store: true`.
"""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import owner_of
from llm_backend.controllers.administration.records.single_settings import put_setting, setting_of
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonValue

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def retrieve_organization_data_retention(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/data_retention`, and of a project."""
    project_id = await owner_of(services, request)
    setting = await setting_of(services, resource_kinds.DATA_RETENTION, project_id)
    unset = _by_settings(services) if project_id is None else "organization_default"
    return JsonResponse(_retention_object(project_id, setting["type"] if setting else unset))


async def update_organization_data_retention(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/data_retention`, and of a project."""
    body: api.UpdateOrganizationDataRetentionBody | api.UpdateProjectDataRetentionBody
    body = request.body
    project_id = await owner_of(services, request, must_be_active=True)
    put = await put_setting(
        services,
        request,
        resource_kinds.DATA_RETENTION,
        {"type": body["retention_type"]},
        type=f"{_owner(project_id)}.updated",
        project_id=project_id,
    )
    return JsonResponse(_retention_object(project_id, put["type"]))


# A path with a project names its retention; without one, that of the organization.
retrieve_project_data_retention = retrieve_organization_data_retention
update_project_data_retention = update_organization_data_retention


def _retention_object(
    project_id: str | None, type: JsonValue
) -> "api.OrganizationDataRetention | api.ProjectDataRetention":
    if project_id is None:
        return {"object": "organization.data_retention", "type": type}
    return {"object": "project.data_retention", "type": type}


def _owner(project_id: str | None) -> str:
    return "organization" if project_id is None else "project"


def _by_settings(services: Services) -> str:
    """Maps the setting `store_chats` to OpenAI's type; there is no abuse monitoring here."""
    keeps_nothing = services.settings.store_chats == "never"
    return "zero_data_retention" if keeps_nothing else "modified_abuse_monitoring"
