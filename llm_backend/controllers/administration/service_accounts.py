"""Service accounts: non-human members of a project, and their API keys."""

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from llm_backend.access import new_key
from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    audit_entry,
    key_creation,
    project_of,
)
from llm_backend.controllers.administration.records.key_objects import new_service_account_key
from llm_backend.controllers.administration.records.resource import Resource
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonObject
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

ACCOUNTS = Resource(
    kind=resource_kinds.SERVICE_ACCOUNT, name="service account", id_prefix="svc_acct_"
)
CHANGEABLE_FIELDS: Final = ("name", "role")


async def list_project_service_accounts(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/service_accounts`"""
    project = await project_of(services, request)
    return await ACCOUNTS.list(services, request, _account_object, project_id=project.id)


async def create_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/service_accounts`: also creates a key, shown only
    in this response, unless `create_service_account_only` is set."""
    project = await project_of(services, request, must_be_active=True)
    body: api.ProjectServiceAccountCreateRequest = request.body
    lifetime_s = body.get("expires_in_seconds")
    account = ACCOUNTS.new({"name": body["name"], "role": "member"}, project_id=project.id)
    key = None
    if not body.get("create_service_account_only"):
        key = new_key(
            "Secret Key",
            project_id=project.id,
            service_account_id=account.id,
            lifetime_s=lifetime_s,
        )
    elif lifetime_s is not None:
        raise InvalidRequest(
            "`expires_in_seconds` is the lifetime of the key, and no key is created: leave it out.",
            param="expires_in_seconds",
        )
    entry = audit_entry(
        request,
        "service_account.created",
        account.id,
        project_id=project.id,
        data={"role": "member"},
    )
    async with key_creation(services, ACCOUNTS.name) as headers:
        await services.access.administration.add(entry, account, *([key.stored] if key else []))
    account_body = None if key is None else new_service_account_key(key)
    answer = {**_account_object(account), "api_key": account_body}
    return JsonResponse(answer, headers=headers)


async def retrieve_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/service_accounts/{service_account_id}`"""
    return JsonResponse(_account_object(await _account(services, request)))


async def update_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/service_accounts/{service_account_id}`"""
    account = await _account(services, request, must_be_active=True)
    body: api.UpdateProjectServiceAccountBody = request.body
    values: JsonObject = {name: body[name] for name in CHANGEABLE_FIELDS if name in body}
    entry = audit_entry(
        request,
        "service_account.updated",
        account.id,
        project_id=account.project_id,
        requested={name: value for name, value in values.items() if name == "role"},
    )
    account = await ACCOUNTS.alter(services, entry, account.id, **values)
    return JsonResponse(_account_object(account))


async def delete_project_service_account(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/projects/{project_id}/service_accounts/{service_account_id}`: also
    deletes its keys."""
    account = await _account(services, request)
    entry = audit_entry(
        request, "service_account.deleted", account.id, project_id=account.project_id
    )
    await ACCOUNTS.remove(services, entry, account.id, service_account_id=account.id)
    return deleted_response(account.id, "organization.project.service_account.deleted")


async def createan_apikeyforaserviceaccount(services: Services, request: ApiRequest) -> Response:
    """`POST .../service_accounts/{service_account_id}/api_keys`: shows the key only this once."""
    account = await _account(services, request, must_be_active=True)
    body: api.CreateProjectServiceAccountApiKeyBody = request.body or {}
    if body.get("scopes"):
        raise UnsupportedField(
            "Keys have no scopes on this server; each has the permissions of its project. Leave "
            "`scopes` out.",
            param="scopes",
        )
    key = new_key(
        body.get("name") or "Secret Key",
        project_id=account.project_id,
        service_account_id=account.id,
        lifetime_s=body.get("expires_in_seconds"),
    )
    entry = audit_entry(
        request,
        "api_key.created",
        key.stored.id,
        project_id=account.project_id,
        data={"scopes": []},
    )
    async with key_creation(services, "API key") as headers:
        await services.access.administration.add_key(entry, key.stored)
    return JsonResponse(new_service_account_key(key), headers=headers)


async def _account(
    services: Services, request: ApiRequest, *, must_be_active: bool = False
) -> Record:
    """Returns the service account of the path, if it belongs to the path's project. Raises
    `InvalidRequest` for an archived project if it `must_be_active`."""
    project = await project_of(services, request, must_be_active=must_be_active)
    id = request.path["service_account_id"]
    return await ACCOUNTS.get(services, id, project_id=project.id)


def _account_object(account: Record) -> "api.ProjectServiceAccount":
    return {
        "object": "organization.project.service_account",
        "id": account.id,
        "name": account.body["name"],
        "role": account.body["role"],
        "created_at": account.created_at,
    }
