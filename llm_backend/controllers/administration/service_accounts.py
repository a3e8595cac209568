"""Service accounts: non-human members of a project, and their API keys."""

import time
import uuid
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from llm_backend.access import new_key
from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    create_key,
    project_of,
    translate_read_errors,
)
from llm_backend.controllers.administration.records.key_objects import new_service_account_key
from llm_backend.controllers.administration.records.listing import list_object, list_page
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonObject
from llm_backend.store import Missing
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


THING = "service account"
NAMES: Final = ("name", "role")  # that can be changed


async def list_project_service_accounts(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/service_accounts`"""
    project = await project_of(services, request)
    with translate_read_errors(THING):
        page = await list_page(
            request.query,
            lambda page: services.access.administration.find(
                resource_kinds.SERVICE_ACCOUNT, page, project_id=project.id
            ),
        )
    data = [_account_object(account) for account in page.items]
    return JsonResponse(list_object(data, has_more=page.has_more))


async def create_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/service_accounts`: also creates a key, shown only
    in this response, unless `create_service_account_only` is set."""
    project = await project_of(services, request, is_changed=True)
    body: api.ProjectServiceAccountCreateRequest = request.body
    account = Record(
        id=f"svc_acct_{uuid.uuid4().hex[:24]}",
        kind=resource_kinds.SERVICE_ACCOUNT,
        created_at=int(time.time()),
        project_id=project.id,
        body={"name": body["name"], "role": "member"},
    )
    key = None
    if not body.get("create_service_account_only"):
        key = new_key("Secret Key", project_id=project.id, service_account_id=account.id)
    entry = audit_entry(
        request,
        "service_account.created",
        account.id,
        project_id=project.id,
        data={"role": "member"},
    )
    async with create_key(services, THING) as headers:
        await services.access.administration.add(entry, account, *([key.stored] if key else []))
    account_body = None if key is None else new_service_account_key(key)
    answer = {**_account_object(account), "api_key": account_body}
    return JsonResponse(answer, headers=headers)


async def retrieve_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/service_accounts/{service_account_id}`"""
    return JsonResponse(_account_object(await _account(services, request)))


async def update_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/service_accounts/{service_account_id}`"""
    account = await _account(services, request)
    body: api.UpdateProjectServiceAccountBody = request.body
    values: JsonObject = {name: body[name] for name in NAMES if name in body}
    entry = audit_entry(
        request,
        "service_account.updated",
        account.id,
        project_id=account.project_id,
        requested={name: value for name, value in values.items() if name == "role"},
    )

    def with_changes(account: Record) -> Record:
        return Record(**{**vars(account), "body": {**account.body, **values}})

    async with apply_change(services, THING):
        account = await services.access.administration.alter(
            entry, resource_kinds.SERVICE_ACCOUNT, account.id, with_changes
        )
    return JsonResponse(_account_object(account))


async def delete_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/projects/{project_id}/service_accounts/{service_account_id}`: also
    deletes its keys."""
    account = await _account(services, request)
    entry = audit_entry(
        request, "service_account.deleted", account.id, project_id=account.project_id
    )
    async with apply_change(services, THING):
        await services.access.administration.remove(
            entry, resource_kinds.SERVICE_ACCOUNT, account.id, service_account_id=account.id
        )
    deleted = {
        "object": "organization.project.service_account.deleted",
        "id": account.id,
        "deleted": True,
    }
    return JsonResponse(deleted)


async def createan_apikeyforaserviceaccount(services: Services, request: ApiRequest) -> Response:
    """`POST .../service_accounts/{service_account_id}/api_keys`: shows the key only this once."""
    await project_of(services, request, is_changed=True)
    account = await _account(services, request)
    body: api.CreateProjectServiceAccountApiKeyBody = request.body or {}
    if body.get("scopes"):
        raise UnsupportedField(
            "Keys have no scopes here: what a key may do is its project's to say.", param="scopes"
        )
    key = new_key(
        body.get("name") or "Secret Key",
        project_id=account.project_id,
        service_account_id=account.id,
    )
    entry = audit_entry(
        request,
        "api_key.created",
        key.stored.id,
        project_id=account.project_id,
        data={"scopes": []},
    )
    async with create_key(services, "API key") as headers:
        await services.access.administration.add_key(entry, key.stored)
    return JsonResponse(new_service_account_key(key), headers=headers)


async def _account(services: Services, request: ApiRequest) -> Record:
    """Returns the service account of the path, if it belongs to the path's project."""
    project = await project_of(services, request)
    id = request.path["service_account_id"]
    with translate_read_errors(THING):
        account = await services.access.administration.get(resource_kinds.SERVICE_ACCOUNT, id)
        if account.project_id != project.id:
            raise Missing(id)
    return account


def _account_object(account: Record) -> "api.ProjectServiceAccount":
    return {
        "object": "organization.project.service_account",
        "id": account.id,
        "name": account.body["name"],
        "role": account.body["role"],
        "created_at": account.created_at,
    }
