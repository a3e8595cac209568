"""Invites of users. No mail is sent; an invite is accepted when the operator creates a key for its
address (`llm-backend keys create --user MAIL`).
"""

import time
import uuid
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    translate_read_errors,
)
from llm_backend.controllers.administration.records.listing import list_object, list_page
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import Conflict, InvalidRequest
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


THING = "invite"
LIFETIME_S = 7 * 24 * 60 * 60  # OpenAI's


async def list_invites(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/invites`"""
    with translate_read_errors(THING):
        page = await list_page(
            request.query,
            lambda page: services.access.administration.find(resource_kinds.INVITE, page),
        )
    data = [_invite_object(invite) for invite in page.items]
    return JsonResponse(list_object(data, has_more=page.has_more))


async def invite_user(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/invites`"""
    body: api.InviteRequest = request.body
    email, role = body["email"], body["role"]
    if "@" not in email:
        raise InvalidRequest(
            f"`email` is {email[:64]!r}, which is not an email address.", param="email"
        )
    now = int(time.time())
    projects = body.get("projects") or []
    await _check_projects(services, projects)
    invite = Record(
        id=f"invite-{uuid.uuid4().hex[:24]}",
        kind=resource_kinds.INVITE,
        created_at=now,
        body={
            "email": email,
            "role": role,
            "projects": projects,
            "expires_at": now + LIFETIME_S,
            "accepted_at": None,
        },
    )
    entry = audit_entry(request, "invite.sent", invite.id, data={"email": email, "role": role})
    async with apply_change(services, THING):
        await services.access.administration.add(entry, invite)
    return JsonResponse(_invite_object(invite))


async def retrieve_invite(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/invites/{invite_id}`"""
    with translate_read_errors(THING):
        invite = await services.access.administration.get(
            resource_kinds.INVITE, request.path["invite_id"]
        )
    return JsonResponse(_invite_object(invite))


async def delete_invite(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/invites/{invite_id}`: only a pending or expired invite."""
    id = request.path["invite_id"]
    async with apply_change(services, THING):
        invite = await services.access.administration.get(resource_kinds.INVITE, id)
        if invite.body["accepted_at"] is not None:
            raise Conflict(f"The invite `{id}` has been accepted: delete the user.")
        entry = audit_entry(request, "invite.deleted", id)
        await services.access.administration.remove(entry, resource_kinds.INVITE, id)
    deleted: api.InviteDeleteResponse = {
        "object": "organization.invite.deleted",
        "id": id,
        "deleted": True,
    }
    return JsonResponse(deleted)


async def _check_projects(services: Services, projects: "list[api.InviteRequestProject]") -> None:
    with translate_read_errors("project"):
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
