"""Users of a project; a removed user loses its keys in the project."""

import time
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    project_of,
    unique_id,
)
from llm_backend.controllers.administration.records.listing import (
    list_object,
    list_page,
)
from llm_backend.controllers.administration.records.resource import Resource
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.store import Missing
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

MEMBERS = Resource(kind=resource_kinds.MEMBER, name="user")
ROLES = ("owner", "member")


async def list_project_users(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/users`"""
    project = await project_of(services, request)
    with translate_store_errors(MEMBERS.name):
        page = await list_page(
            request.query,
            lambda page: services.access.administration.find(
                resource_kinds.MEMBER, page, project_id=project.id
            ),
            id_of=lambda id: unique_id(id, project.id),
        )
        data = [await _member_object(services, member) for member in page.items]
    return JsonResponse(list_object(data, has_more=page.has_more))


async def create_project_user(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/users`: adds a user of the organization."""
    project = await project_of(services, request, must_be_active=True)
    body: api.ProjectUserCreateRequest = request.body
    role = body["role"]
    _check_role(role)
    user_id = await _user_id(services, body)
    member = Record(
        id=unique_id(user_id, project.id),
        kind=resource_kinds.MEMBER,
        created_at=int(time.time()),
        project_id=project.id,
        body={"user_id": user_id, "role": role},
    )
    entry = audit_entry(request, "user.added", user_id, project_id=project.id, data={"role": role})
    async with apply_change(services, "user of the project"):
        await services.access.administration.add(
            entry, member, part_of=(resource_kinds.USER, user_id)
        )
        return JsonResponse(await _member_object(services, member))


async def retrieve_project_user(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/users/{user_id}`"""
    return JsonResponse(await _member_object(services, await _member(services, request)))


async def modify_project_user(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/users/{user_id}`: changes the role."""
    request_body: api.ProjectUserUpdateRequest = request.body
    member = await _member(services, request, must_be_active=True)
    role = request_body.get("role")
    if role is None:
        return JsonResponse(await _member_object(services, member))
    _check_role(role)
    entry = audit_entry(
        request,
        "user.updated",
        member.body["user_id"],
        project_id=member.project_id,
        requested={"role": role},
    )
    member = await MEMBERS.alter(services, entry, member.id, role=role)
    return JsonResponse(await _member_object(services, member))


async def delete_project_user(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/projects/{project_id}/users/{user_id}`"""
    member, id = await _member(services, request), request.path["user_id"]
    project_id = request.path["project_id"]
    entry = audit_entry(request, "user.deleted", id, project_id=project_id)
    await MEMBERS.remove(services, entry, member.id, project_id=project_id, user_id=id)
    return deleted_response(id, "organization.project.user.deleted")


async def _member(
    services: Services, request: ApiRequest, *, must_be_active: bool = False
) -> Record:
    """Returns the member of the path. Raises `InvalidRequest` for an archived project if it
    `must_be_active`."""
    project = await project_of(services, request, must_be_active=must_be_active)
    id = request.path["user_id"]
    with translate_store_errors(MEMBERS.name):
        try:
            return await services.access.administration.get(
                resource_kinds.MEMBER, unique_id(id, project.id)
            )
        except Missing as error:
            raise NotFound(f"No user of the project has the id `{id}`.") from error


async def _user_id(services: Services, body: "api.ProjectUserCreateRequest") -> str:
    """Returns the id of the user that the body names, by id or by e-mail address."""
    id, email = body.get("user_id"), body.get("email")
    with translate_store_errors(MEMBERS.name):
        if id is not None:
            return (await services.access.administration.get(resource_kinds.USER, id)).id
        snapshot = await services.access.administration.load_snapshot((resource_kinds.USER,))
    for user in snapshot.records:
        if email is not None and user.body["email"] == email:
            return user.id
    if email is None:
        raise InvalidRequest("Name the user by `user_id` or `email`.", param="user_id")
    raise NotFound(f"No user has the address `{email}`: invite them first.", param="email")


async def _member_object(services: Services, member: Record) -> "api.ProjectUser":
    with translate_store_errors(MEMBERS.name):
        user = await services.access.administration.get(resource_kinds.USER, member.body["user_id"])
    return {
        "object": "organization.project.user",
        "id": user.id,
        "name": user.body["name"],
        "email": user.body["email"],
        "role": member.body["role"],
        "added_at": member.created_at,
    }


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InvalidRequest(
            f"`role` is {role[:64]!r}; it must be `owner` or `member`.", param="role"
        )
