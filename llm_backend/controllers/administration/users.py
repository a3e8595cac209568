"""Users: human owners of API keys. The first key for a mail address
(`llm-backend keys create --user MAIL`) creates the user and accepts a pending invite.
"""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    audit_entry,
    unique_id,
)
from llm_backend.controllers.administration.records.resource import Resource
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

USERS = Resource(kind=resource_kinds.USER, name="user")
ROLES = ("owner", "reader")
UNSUPPORTED_FIELDS = ("role_id", "technical_level", "developer_persona")


async def list_users(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/users`"""
    query: api.ListUsersQuery = request.query
    emails = query.get("emails")
    return await USERS.list(
        services,
        request,
        _user_object,
        matches=lambda user: emails is None or user.body["email"] in emails,
    )


async def retrieve_user(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/users/{user_id}`"""
    return JsonResponse(_user_object(await USERS.get(services, request.path["user_id"])))


async def modify_user(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/users/{user_id}`: changes the role."""
    body: api.UserRoleUpdateRequest = request.body
    id, role = request.path["user_id"], body.get("role")
    for name in UNSUPPORTED_FIELDS:
        if body.get(name) is not None:
            raise UnsupportedField(
                f"`{name}` is not supported by this server: leave it out.", param=name
            )
    if role is None:
        return await retrieve_user(services, request)
    if role not in ROLES:
        raise InvalidRequest(
            f"`role` is {role[:64]!r}; it must be `owner` or `reader`.", param="role"
        )
    entry = audit_entry(request, "user.updated", id, requested={"role": role})
    user = await USERS.alter(services, entry, id, role=role)
    return JsonResponse(_user_object(user))


async def delete_user(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/users/{user_id}`: also deletes its keys and project memberships."""
    id = request.path["user_id"]
    entry = audit_entry(request, "user.deleted", id)
    await USERS.remove(services, entry, id, and_ids_beginning=unique_id(id, ""), user_id=id)
    return deleted_response(id, "organization.user.deleted")


def _user_object(user: Record) -> "api.User":
    return {
        "object": "organization.user",
        "id": user.id,
        "name": user.body["name"],
        "email": user.body["email"],
        "role": user.body["role"],
        "added_at": user.created_at,
    }
