"""Model permissions of a project: an allow list or a deny list."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import project_of
from llm_backend.controllers.administration.records.single_settings import (
    put_setting,
    remove_setting,
    setting_of,
)
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

ALL_MODELS: JsonMapping = {"mode": "deny_list", "model_ids": []}  # the default


async def retrieve_project_model_permissions(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/model_permissions`"""
    project = await project_of(services, request)
    setting = await setting_of(services, resource_kinds.MODEL_PERMISSIONS, project.id)
    return JsonResponse(_answer(setting or ALL_MODELS))


async def update_project_model_permissions(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/model_permissions`"""
    project = await project_of(services, request, must_be_active=True)
    body: api.ProjectModelPermissionsUpdateRequest = request.body
    setting = await put_setting(
        services,
        request,
        resource_kinds.MODEL_PERMISSIONS,
        {"mode": body["mode"], "model_ids": body["model_ids"]},
        type="project.updated",
        project_id=project.id,
    )
    return JsonResponse(_answer(setting))


async def delete_project_model_permissions(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/projects/{project_id}/model_permissions`: all models are allowed."""
    project = await project_of(services, request)
    await remove_setting(
        services,
        request,
        resource_kinds.MODEL_PERMISSIONS,
        type="project.updated",
        project_id=project.id,
    )
    deleted: api.ProjectModelPermissionsDeleteResponse = {
        "object": "project.model_permissions.deleted",
        "deleted": True,
    }
    return JsonResponse(deleted)


def _answer(setting: JsonMapping) -> "api.ProjectModelPermissions":
    return {
        "object": "project.model_permissions",
        "mode": setting["mode"],
        "model_ids": setting["model_ids"],
    }
