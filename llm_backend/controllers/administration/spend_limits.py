"""Spend limits of the organization and of projects. Once the cost of a month's usage, at the prices
of the settings, reaches the limit, model requests are refused until the month ends.
"""

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from llm_backend.access.authentication import resource_kinds
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    owner_of,
)
from llm_backend.controllers.administration.records.single_settings import (
    put_setting,
    remove_setting,
    setting_of,
)
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import NotFound
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

CHANGED = "tenant.billing.overage_limit.updated"
FIELDS: Final = ("threshold_amount", "currency", "interval")


async def getorganizationspendlimit(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/spend_limit`, also for a project."""
    project_id = await owner_of(services, request)
    setting = await setting_of(services, resource_kinds.SPEND_LIMIT, project_id)
    if setting is None:
        raise _no_limit(project_id)
    return _answer(services, {**setting}, project_id)


async def updateorganizationspendlimit(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/spend_limit`, also for a project."""
    body: api.UpdateOrganizationSpendLimitBody = request.body  # or a project's
    project_id = await owner_of(services, request, must_be_active=True)
    requested_limits: JsonObject = {name: body[name] for name in FIELDS}
    stored = await put_setting(
        services,
        request,
        resource_kinds.SPEND_LIMIT,
        requested_limits,
        type=CHANGED,
        project_id=project_id,
    )
    with translate_store_errors("spend limit"):
        await services.access.spending.refresh()  # the limit may be exceeded already
    return _answer(services, stored, project_id)


async def deleteorganizationspendlimit(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/spend_limit`, also for a project."""
    project_id = await owner_of(services, request)
    if not await remove_setting(
        services, request, resource_kinds.SPEND_LIMIT, type=CHANGED, project_id=project_id
    ):
        raise _no_limit(project_id)
    return JsonResponse({"object": f"{_object(project_id)}.deleted", "deleted": True})


# A path with a project means the project's limit, any other path the organization's.
getprojectspendlimit = getorganizationspendlimit
updateprojectspendlimit = updateorganizationspendlimit
deleteprojectspendlimit = deleteorganizationspendlimit


def _answer(services: Services, setting: JsonMapping, project_id: str | None) -> Response:
    is_reached = services.access.spending.cents(project_id) >= setting["threshold_amount"]
    status = "enforcing" if is_reached else "inactive"
    return JsonResponse(
        {"object": _object(project_id), **setting, "enforcement": {"status": status}}
    )


def _object(project_id: str | None) -> str:
    return f"{'organization' if project_id is None else 'project'}.spend_limit"


def _no_limit(project_id: str | None) -> NotFound:
    owner = "organization" if project_id is None else f"project `{project_id}`"
    return NotFound(f"The {owner} has no spend limit.")
