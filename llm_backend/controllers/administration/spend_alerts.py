"""Spend alerts of the organization and of projects: each is logged once a month, when the cost of
usage reaches its threshold. No mail is sent: the log event names the recipients.
"""

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    project_of,
    translate_read_errors,
)
from llm_backend.controllers.administration.records.listing import list_object, list_page
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject
from llm_backend.store import Missing
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

THING = "spend alert"
CHANGED = "tenant.billing.alerts.updated"
FIELDS: Final = ("threshold_amount", "currency", "interval", "notification_channel")


async def list_organization_spend_alerts(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/spend_alerts`"""
    return await _list(services, request, None)


async def create_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/spend_alerts`"""
    return await _create(services, request, None)


async def retrieve_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/spend_alerts/{alert_id}`"""
    return JsonResponse(_alert_object(await _alert(services, request, None)))


async def update_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/spend_alerts/{alert_id}`"""
    return await _update(services, request, None)


async def delete_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/spend_alerts/{alert_id}`"""
    return await _delete(services, request, None)


async def list_project_spend_alerts(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/spend_alerts`"""
    return await _list(services, request, (await project_of(services, request)).id)


async def create_project_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/spend_alerts`"""
    project = await project_of(services, request, is_changed=True)
    return await _create(services, request, project.id)


async def retrieve_project_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/projects/{project_id}/spend_alerts/{alert_id}`"""
    project = await project_of(services, request)
    return JsonResponse(_alert_object(await _alert(services, request, project.id)))


async def update_project_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/projects/{project_id}/spend_alerts/{alert_id}`"""
    project = await project_of(services, request, is_changed=True)
    return await _update(services, request, project.id)


async def delete_project_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/projects/{project_id}/spend_alerts/{alert_id}`"""
    return await _delete(services, request, (await project_of(services, request)).id)


async def _list(services: Services, request: ApiRequest, project_id: str | None) -> Response:
    with translate_read_errors(THING):
        page = await list_page(
            request.query,
            lambda page: services.access.administration.find(
                resource_kinds.SPEND_ALERT, page, project_id=project_id
            ),
        )
    data = [_alert_object(alert) for alert in page.items]
    return JsonResponse(list_object(data, has_more=page.has_more))


async def _create(services: Services, request: ApiRequest, project_id: str | None) -> Response:
    alert = Record(
        id=f"alert_{uuid.uuid4().hex[:24]}",
        kind=resource_kinds.SPEND_ALERT,
        created_at=int(time.time()),
        project_id=project_id,
        body=_alert_of_body(request.body),
    )
    entry = audit_entry(request, CHANGED, alert.id, project_id=project_id, data=alert.body)
    async with apply_change(services, THING):
        await services.access.administration.add(entry, alert)
    return JsonResponse(_alert_object(alert))


async def _update(services: Services, request: ApiRequest, project_id: str | None) -> Response:
    alert = await _alert(services, request, project_id)
    body = _alert_of_body(request.body)
    entry = audit_entry(request, CHANGED, alert.id, project_id=project_id, requested=body)
    async with apply_change(services, THING):
        alert = await services.access.administration.alter(
            entry, resource_kinds.SPEND_ALERT, alert.id, lambda alert: replace(alert, body=body)
        )
    return JsonResponse(_alert_object(alert))


async def _delete(services: Services, request: ApiRequest, project_id: str | None) -> Response:
    alert = await _alert(services, request, project_id)
    entry = audit_entry(request, CHANGED, alert.id, project_id=project_id)
    async with apply_change(services, THING):
        await services.access.administration.remove(entry, resource_kinds.SPEND_ALERT, alert.id)
    owner = "organization" if project_id is None else "project"
    deleted = f"{owner}.spend_alert.deleted"
    return JsonResponse({"id": alert.id, "object": deleted, "deleted": True})


async def _alert(services: Services, request: ApiRequest, project_id: str | None) -> Record:
    id = request.path["alert_id"]
    with translate_read_errors(THING):
        alert = await services.access.administration.get(resource_kinds.SPEND_ALERT, id)
        if alert.project_id != project_id:
            raise Missing(id)
    return alert


def _alert_of_body(body: "api.CreateSpendAlertBody") -> JsonObject:
    return {name: body[name] for name in FIELDS}


def _alert_object(alert: Record) -> "api.OrganizationSpendAlert | api.ProjectSpendAlert":
    body = cast("api.CreateSpendAlertBody", alert.body)
    if alert.project_id is None:
        return {"id": alert.id, "object": "organization.spend_alert", **body}
    return {"id": alert.id, "object": "project.spend_alert", **body}
