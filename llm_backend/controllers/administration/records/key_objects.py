"""Response objects for API keys: admin keys, project keys, new service account keys."""

from typing import TYPE_CHECKING

from llm_backend.access import NewKey
from llm_backend.access.authentication import resource_kinds
from llm_backend.controllers.services import Services
from llm_backend.store import Missing
from llm_backend.store.administration import Record, StoredKey

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


def admin_key_object(key: StoredKey) -> "api.AdminApiKey":
    """Renders an admin key; its owner is the organization, rendered as a service account."""
    return {
        "object": "organization.admin_api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": key.shown,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "owner": {
            "type": "service_account",
            "object": "organization.service_account",
            "id": key.id,
            "name": key.name,
            "created_at": key.created_at,
            "role": "owner",
        },
    }


async def project_key_object(services: Services, key: StoredKey) -> "api.ProjectApiKey":
    """Renders a project's key with its owner."""
    return {
        "object": "organization.project.api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": key.shown,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        # A user that is removed from the project loses its keys, so access is never inactive.
        "owner_project_access": "active",
        "owner": await _owner(services, key),
    }


def new_service_account_key(key: NewKey) -> "api.ProjectServiceAccountApiKey":
    """Renders a new key of a service account, with its value, which is shown only once."""
    return {
        "object": "organization.project.service_account.api_key",
        "value": key.value,
        "name": key.stored.name,
        "created_at": key.stored.created_at,
        "id": key.stored.id,
    }


async def _owner(services: Services, key: StoredKey) -> "api.ProjectApiKeyOwner":
    if key.user_id is not None:
        user = await _record(services, resource_kinds.USER, key.user_id)
        return {"type": "user", "user": _user_object(key.user_id, user, key)}
    account = await _record(services, resource_kinds.SERVICE_ACCOUNT, key.service_account_id)
    return {"type": "service_account", "service_account": _account(account, key)}


async def _record(services: Services, kind: str, id: str | None) -> Record | None:
    if id is None:
        return None
    try:
        return await services.access.administration.get(kind, id)
    except Missing:  # deleted since the key was read
        return None


def _user_object(id: str, user: Record | None, key: StoredKey) -> "api.ProjectApiKeyOwnerUser":
    body = user.body if user else {}
    return {
        "id": id,
        "email": body.get("email", ""),
        "name": body.get("name") or "",
        "created_at": user.created_at if user else key.created_at,
        "role": body.get("role", "reader"),
    }


def _account(account: Record | None, key: StoredKey) -> "api.ProjectApiKeyOwnerServiceAccount":
    """Renders the service account of a key; a key without an owner, created in the shell, is shown
    as its own service account."""
    return {
        "id": account.id if account else key.id,
        "name": account.body["name"] if account else key.name,
        "created_at": account.created_at if account else key.created_at,
        "role": account.body["role"] if account else "member",
    }
