"""Audit log: every administrative change and its actor."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.listing import (
    list_object,
    paged_response,
)
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject
from llm_backend.store.administration import AuditEntry, AuditFilter

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def list_audit_logs(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/audit_logs`: the newest first. There are no tenants here, so `tenant_only`
    returns an empty list."""
    query: api.ListAuditLogsQuery = request.query
    if query.get("tenant_only"):
        return JsonResponse(list_object([], has_more=False))
    audit_filter = _filter(query)
    names = {id: project.name for id, project in services.access.keyring.policy.projects.items()}
    return await paged_response(
        "audit log entry",
        query,
        lambda page: services.access.administration.audit_entries(audit_filter, page),
        lambda entry: _entry_object(entry, names),
        order="desc",
    )


def _filter(query: "api.ListAuditLogsQuery") -> AuditFilter:
    times = query.get("effective_at", {})
    return AuditFilter(
        types=query.get("event_types[]"),
        project_ids=query.get("project_ids[]"),
        actor_ids=query.get("actor_ids[]"),
        actor_emails=query.get("actor_emails[]"),
        resource_ids=query.get("resource_ids[]"),
        after_s=times.get("gt"),
        since_s=times.get("gte"),
        before_s=times.get("lt"),
        until_s=times.get("lte"),
    )


def _entry_object(entry: AuditEntry, names: Mapping[str, str]) -> JsonObject:
    fields: JsonObject = {
        "id": entry.id,
        "type": entry.type,
        "effective_at": entry.created_at,
        "actor": None if entry.actor_id is None else _actor(entry),
        entry.type: entry.body,
    }
    if entry.project_id is not None:
        fields["project"] = {
            "id": entry.project_id,
            "name": names.get(entry.project_id, entry.project_id),
        }
    return fields


def _actor(entry: AuditEntry) -> JsonObject:
    key: JsonObject = {"id": entry.actor_id, "type": "service_account"}
    if entry.actor_email is not None:
        key = {"id": entry.actor_id, "type": "user", "user": {"email": entry.actor_email}}
    return {"type": "api_key", "api_key": key}
