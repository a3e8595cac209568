"""Invites of users. No mail is sent; an invite is accepted when the operator creates a key for its
address (`llm-backend keys create --user MAIL`).
"""

import time
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import audit_entry
from llm_backend.controllers.administration.records.resource import Resource
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.durations import DAY_S
from llm_backend.errors import Conflict, InvalidRequest
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

INVITES = Resource(kind=resource_kinds.INVITE, name="invite", id_prefix="invite-")
LIFETIME_S = 7 * DAY_S  # OpenAI's


async def list_invites(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/invites`"""
    return await INVITES.list(services, request, _invite_object)


async def invite_user(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/invites`"""
    body: api.InviteRequest = request.body
    email, role = body["email"], body["role"]
    if "@" not in email:
        raise InvalidRequest(
            f"`email` is {email[:64]!r}, which is not an email address.", param="email"
        )
    projects = body.get("projects") or []
    await _check_projects(services, projects)
    invite = INVITES.new(
        {
            "email": email,
            "role": role,
            "projects": projects,
            "expires_at": int(time.time()) + LIFETIME_S,
            "accepted_at": None,
        }
    )
    entry = audit_entry(request, "invite.sent", invite.id, data={"email": email, "role": role})
    await INVITES.add(services, entry, invite)
    return JsonResponse(_invite_object(invite))


async def retrieve_invite(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/invites/{invite_id}`"""
    return JsonResponse(_invite_object(await INVITES.get(services, request.path["invite_id"])))


async def delete_invite(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/invites/{invite_id}`: only a pending or expired invite."""
    id = request.path["invite_id"]
    invite = await INVITES.get(services, id)
    if invite.body["accepted_at"] is not None:
        raise Conflict(f"The invite `{id}` has been accepted: delete the user.")
    await INVITES.remove(services, audit_entry(request, "invite.deleted", id), id)
    return deleted_response(id, "organization.invite.deleted")


async def _check_projects(services: Services, projects: "list[api.InviteRequestProject]") -> None:
    with translate_store_errors("project"):
        for project in projects:
            await services.access.administration.get(resource_kinds.PROJECT, project["id"])


def _invite_object(invite: Record) -> "api.Invite":
    body = invite.body
    is_over = body["expires_at"] <= time.time()
    return {
        "object": "organization.invite",
        "id": invite.id,
        "email": body["email"],
        "role": body["role"],
        "status": "accepted" if body["accepted_at"] else "expired" if is_over else "pending",
        "created_at": invite.created_at,
        "expires_at": body["expires_at"],
        "accepted_at": body["accepted_at"],
        "projects": body["projects"],
    }
