"""API keys: creation, the hash by which a key is stored and found, and the default project."""

import hashlib
import secrets
import time
import uuid
from dataclasses import dataclass

from llm_backend.access.authentication import resource_kinds
from llm_backend.access.authentication.policy import DEFAULT_PROJECT
from llm_backend.store.administration import Administration, AuditedChange, Record, StoredKey

DEFAULT_NAME = "Default project"
KEY_BYTES = 32  # random bytes of a key: too many to guess a key by its hash


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A new key; `value` is shown once and never stored."""

    value: str
    stored: StoredKey


def new_key(
    name: str,
    *,
    project_id: str | None = None,
    service_account_id: str | None = None,
    user_id: str | None = None,
    lifetime_s: int | None = None,
    description: str | None = None,
) -> NewKey:
    """Creates a key of a project, or an admin key without a `project_id`. Stores nothing."""
    kind = "sk-admin" if project_id is None else "sk-svcacct" if service_account_id else "sk-proj"
    value = f"{kind}-{secrets.token_urlsafe(KEY_BYTES)}"
    created_at = int(time.time())
    stored = StoredKey(
        id=f"key_{uuid.uuid4().hex[:24]}",
        created_at=created_at,
        hash=hash_key(value).hex(),
        name=name,
        description=description,
        shown=f"{value[: len(kind) + 4]}***{value[-4:]}",
        project_id=project_id,
        service_account_id=service_account_id,
        user_id=user_id,
        expires_at=None if lifetime_s is None else created_at + lifetime_s,
    )
    return NewKey(value=value, stored=stored)


async def make_default_project(administration: Administration, now: int) -> None:
    """Creates the default project unless it exists."""
    if await administration.has(resource_kinds.PROJECT, DEFAULT_PROJECT):
        return
    project = Record(
        id=DEFAULT_PROJECT,
        kind=resource_kinds.PROJECT,
        created_at=now,
        body={"name": DEFAULT_NAME, "archived_at": None},
    )
    change = AuditedChange(
        type="project.created",
        resource_id=project.id,
        project_id=project.id,
        body={"id": project.id, "data": {"name": DEFAULT_NAME}},
    )
    await administration.add(change, project)


def hash_key(key: str) -> bytes:
    """Returns the hash by which a key is stored and found."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
