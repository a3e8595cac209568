"""Creates and revokes API keys directly in the database, for the operator's command line."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import replace

from llm_backend.access.authentication import resource_kinds
from llm_backend.access.authentication.api_keys import NewKey, make_default_project, new_key
from llm_backend.access.authentication.policy import DEFAULT_PROJECT
from llm_backend.store.administration import Administration, AuditedChange, Record


class UnknownName(Exception):
    """No project, or several projects, have this name; the message says which."""


async def create_key(
    administration: Administration,
    name: str,
    *,
    is_admin: bool = False,
    project: str | None = None,
    email: str | None = None,
    lifetime_s: int | None = None,
    description: str | None = None,
) -> NewKey:
    """Stores a new key: an admin key, or a key of the project with `project` as id or name.

    With an e-mail address the key belongs to that user. An unknown user is created, and a
    pending invite of the address is accepted. Raises `UnknownName`.
    """
    if is_admin:
        key = new_key(name, lifetime_s=lifetime_s, description=description)
        return await _store_key(administration, key)
    await make_default_project(administration, int(time.time()))
    snapshot = await administration.load_snapshot(
        (resource_kinds.PROJECT, resource_kinds.USER, resource_kinds.INVITE)
    )
    project_id = _project_id(snapshot.records, project or DEFAULT_PROJECT)
    user_id = None
    if email is not None:
        user_id = await _add_user(administration, snapshot.records, email, project_id)
    key = new_key(
        name,
        project_id=project_id,
        user_id=user_id,
        lifetime_s=lifetime_s,
        description=description,
    )
    return await _store_key(administration, key)


async def revoke_key(administration: Administration, id: str) -> None:
    """Deletes a key. Raises `Missing`."""
    await administration.remove_key(_change("api_key.deleted", id), id)


async def _store_key(administration: Administration, key: NewKey) -> NewKey:
    change = _change("api_key.created", key.stored.id, project_id=key.stored.project_id)
    await administration.add_key(change, key.stored)
    return key


def _project_id(records: Iterable[Record], id_or_name: str) -> str:
    projects = [
        record
        for record in records
        if record.kind == resource_kinds.PROJECT and record.body.get("archived_at") is None
    ]
    found = [one.id for one in projects if one.id == id_or_name] or [
        one.id for one in projects if one.body["name"] == id_or_name
    ]
    if len(found) != 1:
        raise UnknownName(
            f"{len(found) or 'No'} projects are called `{id_or_name}`: give the id of one."
        )
    return found[0]


async def _add_user(
    administration: Administration, records: Iterable[Record], email: str, project_id: str
) -> str:
    """Returns the id of the user with this address, after creating what is missing: the user and
    its membership in the project."""
    records, now = list(records), int(time.time())
    invite = await _accept_invite(administration, records, email, now)
    known = [
        one for one in records if one.kind == resource_kinds.USER and one.body["email"] == email
    ]
    if known:
        user = known[0]
    else:
        role = "reader" if invite is None else str(invite.body["role"])
        body = {"name": None, "email": email, "role": role}
        user = Record(
            id=f"user-{uuid.uuid4().hex[:24]}", kind=resource_kinds.USER, created_at=now, body=body
        )
        await administration.add(_change("user.added", user.id, data={"role": role}), user)
    roles = {project_id: "member"}
    roles |= {one["id"]: one["role"] for one in invite.body["projects"]} if invite else {}
    for joined, role in roles.items():
        await _join(administration, user.id, joined, role, now)
    return user.id


async def _join(
    administration: Administration, user_id: str, project_id: str, role: str, now: int
) -> None:
    member = Record(
        id=f"{user_id}@{project_id}",
        kind=resource_kinds.MEMBER,
        created_at=now,
        project_id=project_id,
        body={"user_id": user_id, "role": role},
    )
    added = _change("user.added", user_id, project_id=project_id, data={"role": role})
    if not await administration.has(resource_kinds.MEMBER, member.id):
        await administration.add(added, member)


async def _accept_invite(
    administration: Administration, records: Iterable[Record], email: str, now: int
) -> Record | None:
    """Accepts the pending invite of the address and returns it; None if there is none."""
    for invite in records:
        if invite.kind != resource_kinds.INVITE or invite.body["email"] != email:
            continue
        if invite.body["accepted_at"] is None and invite.body["expires_at"] > now:
            accepted = replace(invite, body={**invite.body, "accepted_at": now})
            await administration.put(_change("invite.accepted", invite.id), accepted)
            return accepted
    return None


def _change(
    type: str,
    id: str,
    *,
    project_id: str | None = None,
    data: dict[str, str] | None = None,
) -> AuditedChange:
    body = {"id": id} if data is None else {"id": id, "data": data}
    return AuditedChange(type=type, resource_id=id, project_id=project_id, body=body)
