"""Spend alerts of the organization and of projects: each is logged once a month, when the cost of
usage reaches its threshold. No mail is sent: the log event names the recipients.
"""

from typing import TYPE_CHECKING, Final, cast

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    audit_entry,
    owner_of,
)
from llm_backend.controllers.administration.records.resource import Resource
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject
from llm_backend.store.administration import Record

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

ALERTS = Resource(kind=resource_kinds.SPEND_ALERT, name="spend alert", id_prefix="alert_")
CHANGED = "tenant.billing.alerts.updated"
FIELDS: Final = ("threshold_amount", "currency", "interval", "notification_channel")


async def list_organization_spend_alerts(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/spend_alerts`, and of a project."""
    project_id = await owner_of(services, request)
    return await ALERTS.list(services, request, _alert_object, project_id=project_id)


async def create_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/spend_alerts`, and of a project."""
    project_id = await owner_of(services, request, must_be_active=True)
    body: api.CreateSpendAlertBody = request.body
    alert = ALERTS.new(_alert_fields(body), project_id=project_id)
    entry = audit_entry(request, CHANGED, alert.id, project_id=project_id, data=alert.body)
    await ALERTS.add(services, entry, alert)
    return JsonResponse(_alert_object(alert))


async def retrieve_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/spend_alerts/{alert_id}`, and of a project."""
    return JsonResponse(_alert_object(await _alert(services, request)))


async def update_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/spend_alerts/{alert_id}`, and of a project."""
    alert = await _alert(services, request, must_be_active=True)
    body: api.CreateSpendAlertBody = request.body
    fields = _alert_fields(body)
    entry = audit_entry(request, CHANGED, alert.id, project_id=alert.project_id, requested=fields)
    return JsonResponse(_alert_object(await ALERTS.alter(services, entry, alert.id, **fields)))


async def delete_organization_spend_alert(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/spend_alerts/{alert_id}`, and of a project."""
    alert = await _alert(services, request)
    entry = audit_entry(request, CHANGED, alert.id, project_id=alert.project_id)
    await ALERTS.remove(services, entry, alert.id)
    return deleted_response(alert.id, f"{_alert_object(alert)['object']}.deleted")


# The same functions serve both: `owner_of` reads the project from the path, if there is one.
list_project_spend_alerts = list_organization_spend_alerts
create_project_spend_alert = create_organization_spend_alert
retrieve_project_spend_alert = retrieve_organization_spend_alert
update_project_spend_alert = update_organization_spend_alert
delete_project_spend_alert = delete_organization_spend_alert


async def _alert(
    services: Services, request: ApiRequest, *, must_be_active: bool = False
) -> Record:
    project_id = await owner_of(services, request, must_be_active=must_be_active)
    return await ALERTS.get(services, request.path["alert_id"], project_id=project_id)


def _alert_fields(body: "api.CreateSpendAlertBody") -> JsonObject:
    return {name: body[name] for name in FIELDS}


def _alert_object(alert: Record) -> "api.OrganizationSpendAlert | api.ProjectSpendAlert":
    body = cast("api.CreateSpendAlertBody", alert.body)
    if alert.project_id is None:
        return {"id": alert.id, "object": "organization.spend_alert", **body}
    return {"id": alert.id, "object": "project.spend_alert", **body}
