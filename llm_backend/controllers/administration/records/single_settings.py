"""Single-valued settings of a project or the organization: permissions, retention, spend limit."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    unique_id,
)
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store import Missing
from llm_backend.store.administration import Record

ORGANIZATION = "organization"


async def setting_of(
    services: Services, kind: str, project_id: str | None = None
) -> Mapping[str, Any] | None:
    """Returns the setting of a project, or of the organization; None if it is unset."""
    with translate_store_errors(kind):
        try:
            found = await services.access.administration.get(kind, _id(kind, project_id))
        except Missing:
            return None
    return found.body


async def put_setting(
    services: Services,
    request: ApiRequest,
    kind: str,
    body: JsonObject,
    *,
    type: str,
    project_id: str | None = None,
    is_partial: bool = False,
) -> JsonMapping:
    """Stores the setting, with an audit log entry of `type`; returns the stored body. If `body`
    `is_partial`, other fields of an earlier one stay."""
    record = Record(
        id=_id(kind, project_id),
        kind=kind,
        created_at=int(time.time()),
        project_id=project_id,
        body=body,
    )
    entry = audit_entry(
        request, type, project_id or ORGANIZATION, project_id=project_id, requested={kind: body}
    )
    administration = services.access.administration
    async with apply_change(services, kind):
        if not is_partial:
            await administration.put(entry, record)
            return body
        stored = await administration.merge(
            entry, record, lambda one: replace(one, body={**one.body, **body})
        )
        return stored.body


async def remove_setting(
    services: Services, request: ApiRequest, kind: str, *, type: str, project_id: str | None = None
) -> bool:
    """Removes the setting; returns True if it was set."""
    if await setting_of(services, kind, project_id) is None:
        return False
    entry = audit_entry(
        request, type, project_id or ORGANIZATION, project_id=project_id, requested={kind: None}
    )
    async with apply_change(services, kind):
        await services.access.administration.remove(entry, kind, _id(kind, project_id))
    return True


def _id(kind: str, project_id: str | None) -> str:
    return unique_id(kind, project_id or ORGANIZATION)
