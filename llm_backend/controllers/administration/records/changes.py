"""Parts that all administrative changes share: the audit entry, translated store errors, and the
refresh of this process's keyring."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_backend.access import KEYS_REQUIRED, Caller
from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import Conflict, InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store import Duplicate
from llm_backend.store.administration import AuditedChange, Record

NOTICE = "x-llm-backend-notice"


def audit_entry(
    request: ApiRequest,
    type: str,
    resource_id: str,
    *,
    project_id: str | None = None,
    data: JsonMapping | None = None,
    requested: JsonMapping | None = None,
) -> AuditedChange:
    """Builds the audit log entry of a change: the created `data`, or the `requested` changes."""
    body: JsonObject = {"id": resource_id}
    if data is not None:
        body["data"] = dict(data)
    if requested is not None:
        body["changes_requested"] = dict(requested)
    caller: Caller = request.caller
    return AuditedChange(
        type=type,
        resource_id=resource_id,
        project_id=project_id,
        body=body,
        actor_id=caller.key_id,
        actor_email=caller.email,
    )


@asynccontextmanager
async def key_creation(services: Services, kind: str) -> AsyncIterator[dict[str, str]]:
    """Wraps the creation of a key in `apply_change`. Yields the response headers. They get a notice
    at the end if this is the first key of a server that was open to all callers."""
    headers: dict[str, str] = {}
    was_open = services.access.keyring.is_open_to_all
    async with apply_change(services, kind):
        yield headers
    if was_open and not services.access.keyring.is_open_to_all:
        headers[NOTICE] = KEYS_REQUIRED


@asynccontextmanager
async def apply_change(services: Services, kind: str) -> AsyncIterator[None]:
    """Wraps the store calls of a change: translates errors, then refreshes this process's
    keyring."""
    with translate_store_errors(kind):
        try:
            yield
        except Duplicate as error:
            raise Conflict(f"There is such a {kind} already.") from error
    await services.access.keyring.refresh()


async def project_of(
    services: Services, request: ApiRequest, *, must_be_active: bool = False
) -> Record:
    """Returns the project of the path. Raises `NotFound`, and `InvalidRequest` for an archived one
    if it `must_be_active`."""
    with translate_store_errors("project"):
        project = await services.access.administration.get(
            resource_kinds.PROJECT, request.path["project_id"]
        )
    if must_be_active and project.body.get("archived_at") is not None:
        raise InvalidRequest(f"The project `{project.id}` is archived.", param="project_id")
    return project


async def owner_of(
    services: Services, request: ApiRequest, *, must_be_active: bool = False
) -> str | None:
    """Returns the id of the project by `project_of`; None for a path of the organization."""
    if "project_id" not in request.path:
        return None
    return (await project_of(services, request, must_be_active=must_be_active)).id


def unique_id(id: str, project_id: str) -> str:
    """Makes a globally unique id from an id that is unique only within a project."""
    return f"{id}@{project_id}"
