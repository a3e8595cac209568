"""Admin API keys: authorize administration, but no model requests."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access import new_key
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import (
    apply_change,
    audit_entry,
    key_creation,
)
from llm_backend.controllers.administration.records.key_objects import (
    admin_key_object,
)
from llm_backend.controllers.administration.records.listing import (
    paged_response,
)
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

NOUN = "admin API key"


async def admin_api_keys_list(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/admin_api_keys`"""
    find = services.access.administration.keys
    return await paged_response(NOUN, request.query, find, admin_key_object)


async def admin_api_keys_create(services: Services, request: ApiRequest) -> Response:
    """`POST /organization/admin_api_keys`: only this response contains the key."""
    body: api.AdminApiKeysCreateRequest = request.body
    key = new_key(body["name"], lifetime_s=body.get("expires_in_seconds"))
    entry = audit_entry(request, "api_key.created", key.stored.id, data={"scopes": []})
    async with key_creation(services, NOUN) as headers:
        await services.access.administration.add_key(entry, key.stored)
    answer: api.AdminApiKeyCreateResponse = {**admin_key_object(key.stored), "value": key.value}
    return JsonResponse(answer, headers=headers)


async def admin_api_keys_get(services: Services, request: ApiRequest) -> Response:
    """`GET /organization/admin_api_keys/{key_id}`"""
    with translate_store_errors(NOUN):
        key = await services.access.administration.key(request.path["key_id"])
    return JsonResponse(admin_key_object(key))


async def admin_api_keys_delete(services: Services, request: ApiRequest) -> Response:
    """`DELETE /organization/admin_api_keys/{key_id}`"""
    id = request.path["key_id"]
    async with apply_change(services, NOUN):
        await services.access.administration.key(id)
        await services.access.administration.remove_key(
            audit_entry(request, "api_key.deleted", id), id
        )
    return deleted_response(id, "organization.admin_api_key.deleted")
