"""Data retention: with zero data retention, a project's chats and responses are not stored,
even if a request has `store: true`.
"""

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.changes import project_of
from llm_backend.controllers.administration.own_settings import put_setting, setting_of
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

__all__ = [
    "retrieve_organization_data_retention",
    "retrieve_project_data_retention",
    "update_organization_data_retention",
    "update_project_data_retention",
]


async def retrieve_organization_data_retention(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/data_retention`"""
    own = await setting_of(services, resource_kinds.DATA_RETENTION)
    return JsonResponse(
        {
            "object": "organization.data_retention",
            "type": own["type"] if own else _by_settings(services),
        }
    )


async def update_organization_data_retention(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/data_retention`"""
    own = {"type": request.body["retention_type"]}
    put = await put_setting(
        services, request, resource_kinds.DATA_RETENTION, own, type="organization.updated"
    )
    return JsonResponse({"object": "organization.data_retention", **put})


async def retrieve_project_data_retention(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/data_retention`"""
    project = await project_of(services, request)
    own = await setting_of(services, resource_kinds.DATA_RETENTION, project.id)
    type = own["type"] if own else "organization_default"
    return JsonResponse({"object": "project.data_retention", "type": type})


async def update_project_data_retention(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/data_retention`"""
    project = await project_of(services, request, is_changed=True)
    put = await put_setting(
        services,
        request,
        resource_kinds.DATA_RETENTION,
        {"type": request.body["retention_type"]},
        type="project.updated",
        project_id=project.id,
    )
    return JsonResponse({"object": "project.data_retention", **put})


def _by_settings(services: Services) -> str:
    """Maps the setting `store_chats` to OpenAI's type; there is no abuse monitoring here."""
    keeps_nothing = services.settings.store_chats == "never"
    return "zero_data_retention" if keeps_nothing else "modified_abuse_monitoring"
