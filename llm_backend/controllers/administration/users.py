"""Users: human owners of API keys. A user is created with the first key for its address
(`llm-backend keys create --user MAIL`), which also accepts a pending invite.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    translate_read_errors,
    unique_id,
)
from llm_backend.controllers.administration.records.listing import list_object, list_page
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

THING = "user"
ROLES = ("owner", "reader")
UNHONOURED = ("role_id", "technical_level", "developer_persona")


async def list_users(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/users`"""
    query: api.ListUsersQuery = request.query
    emails = query.get("emails")
    with translate_read_errors(THING):
        page = await list_page(
            query,
            lambda page: services.access.administration.find(resource_kinds.USER, page),
            matches=lambda user: emails is None or user.body["email"] in emails,
        )
    data = [_user_object(user) for user in page.items]
    return JsonResponse(list_object(data, has_more=page.has_more))


async def retrieve_user(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/users/{user_id}`"""
    with translate_read_errors(THING):
        user = await services.access.administration.get(
            resource_kinds.USER, request.path["user_id"]
        )
    return JsonResponse(_user_object(user))


async def modify_user(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/users/{user_id}`: changes the role."""
    body: api.UserRoleUpdateRequest = request.body
    id, role = request.path["user_id"], body.get("role")
    for name in UNHONOURED:
        if body.get(name) is not None:
            raise UnsupportedField(f"`{name}` means nothing here: leave it out.", param=name)
    if role is None:
        return await retrieve_user(services, request)
    if role not in ROLES:
        raise InvalidRequest(f"`role` is {role[:64]!r}; it is `owner` or `reader`.", param="role")
    entry = audit_entry(request, "user.updated", id, requested={"role": role})
    async with apply_change(services, THING):
        user = await services.access.administration.alter(
            entry,
            resource_kinds.USER,
            id,
            lambda user: replace(user, body={**user.body, "role": role}),
        )
    return JsonResponse(_user_object(user))


async def delete_user(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/users/{user_id}`: also deletes its keys and project memberships."""
    id = request.path["user_id"]
    entry = audit_entry(request, "user.deleted", id)
    async with apply_change(services, THING):
        await services.access.administration.remove(
            entry, resource_kinds.USER, id, and_all_named=unique_id(id, ""), user_id=id
        )
    deleted: api.UserDeleteResponse = {
        "id": id,
        "object": "organization.user.deleted",
        "deleted": True,
    }
    return JsonResponse(deleted)


def _user_object(user: Record) -> "api.User":
    return {
        "object": "organization.user",
        "id": user.id,
        "name": user.body["name"],
        "email": user.body["email"],
        "role": user.body["role"],
        "added_at": user.created_at,
    }
