"""Webhook endpoints of the project: create, list, change, delete, rotate secrets, test."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.webhook_sender import WebhookNotSent, WebhookUrlRefused
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import (
    JsonResponse,
    deleted_response,
    list_response,
)
from llm_backend.controllers.rendering.page_query import DEFAULT_LIMIT
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.controllers.webhooks.delivery_worker import send_event
from llm_backend.controllers.webhooks.signature import hint_of, new_secret
from llm_backend.durations import DAY_S
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.store import EndpointChanges, StoredEndpoint, StoredFailure

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_KIND = "webhook endpoint"
_OLD_SECRET_S = DAY_S

EVENT_TYPES = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
)


async def list_webhook_event_types(services: Services, request: ApiRequest) -> Response:
    """`GET /webhook_event_types`"""
    return JsonResponse({"object": "list", "data": [*EVENT_TYPES]})


def check_event_types(types: Sequence[str]) -> list[str]:
    """Returns the types without repetition. Raises `InvalidRequest` as `check_event_type`."""
    for index, type in enumerate(types):
        check_event_type(type, f"event_types[{index}]")
    return list(dict.fromkeys(types))


def check_event_type(type: str, where: str) -> None:
    """Raises `InvalidRequest` with the param `where` for a type that this server never sends."""
    if type not in EVENT_TYPES:
        raise InvalidRequest(
            f"This server sends no `{type}` events; GET /v1/webhook_event_types lists those that "
            "it sends.",
            param=where,
        )


async def create_webhook_endpoint(services: Services, request: ApiRequest) -> Response:
    """`POST /webhook_endpoints`: only this answer contains the secret."""
    body: api.CreateWebhookEndpointRequest = request.body
    _check_url(services, body["url"])
    now = int(services.webhooks.now)
    endpoint = StoredEndpoint(
        id=f"we_{uuid.uuid4().hex}",
        created_at=now,
        name=body["name"],
        url=body["url"],
        event_types=check_event_types(body["event_types"]),
        secret=new_secret(),
        updated_at=now,
    )
    with translate_store_errors(_KIND):
        await services.webhooks.add(endpoint)
    return JsonResponse(_with_secret(endpoint))


async def list_webhook_endpoints(services: Services, request: ApiRequest) -> Response:
    """`GET /webhook_endpoints`: newest first."""
    query: api.ListWebhookEndpointsQuery = request.query
    with translate_store_errors(_KIND):
        page = await services.webhooks.list(
            after=query.get("after"), limit=query.get("limit", DEFAULT_LIMIT)
        )
    return list_response(page, _endpoint_object)


async def retrieve_webhook_endpoint(services: Services, request: ApiRequest) -> Response:
    """`GET /webhook_endpoints/{webhook_endpoint_id}`"""
    return JsonResponse(_endpoint_object(await _endpoint(services, request)))


async def update_webhook_endpoint(services: Services, request: ApiRequest) -> Response:
    """`POST /webhook_endpoints/{webhook_endpoint_id}`: a disabled endpoint is enabled again."""
    body: api.UpdateWebhookEndpointRequest = request.body or {}
    if "url" in body:
        _check_url(services, body["url"])
    changes = EndpointChanges(
        name=body.get("name"),
        url=body.get("url"),
        event_types=check_event_types(body["event_types"]) if "event_types" in body else None,
    )
    with translate_store_errors(_KIND):
        changed = await services.webhooks.change(request.path["webhook_endpoint_id"], changes)
    return JsonResponse(_endpoint_object(changed))


async def delete_webhook_endpoint(services: Services, request: ApiRequest) -> Response:
    """`DELETE /webhook_endpoints/{webhook_endpoint_id}`"""
    endpoint_id = request.path["webhook_endpoint_id"]
    with translate_store_errors(_KIND):
        await services.webhooks.delete(endpoint_id)
    return deleted_response(endpoint_id, "webhook_endpoint.deleted")


async def rotate_webhook_endpoint_secret(services: Services, request: ApiRequest) -> Response:
    """`POST /webhook_endpoints/{webhook_endpoint_id}/rotate_secret`: only this answer contains the
    new secret; while the old one is valid, too, events are signed with both."""
    body: api.RotateWebhookEndpointSecretRequest = request.body or {}
    keep_s = _OLD_SECRET_S if body.get("keep_old_secret_active_for_24_hours") else 0
    with translate_store_errors(_KIND):
        rotated = await services.webhooks.rotate(
            request.path["webhook_endpoint_id"], new_secret(), keep_s=keep_s
        )
    return JsonResponse(_with_secret(rotated))


async def test_webhook_endpoint(services: Services, request: ApiRequest) -> Response:
    """`POST /webhook_endpoints/{webhook_endpoint_id}/test`: sends a sample now, without retries."""
    body: api.TestWebhookEndpointRequest = request.body
    type = body["event_type"]
    check_event_type(type, "event_type")
    endpoint, now = await _endpoint(services, request), services.webhooks.now
    subject = "batch" if type.startswith("batch.") else "resp"
    event = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "type": type,
        "created_at": int(now),
        "data": {"id": f"{subject}_sample"},
    }
    try:
        answer = await send_event(services.webhook_sender, endpoint, event, now)
    except WebhookUrlRefused as error:  # `webhook_hosts` has changed
        raise InvalidRequest(str(error), param="url") from error
    except WebhookNotSent as error:
        raise InvalidRequest(str(error), code="webhook_endpoint_unreachable") from error
    if not answer.is_accepted:
        raise InvalidRequest(
            f"The endpoint answered with {answer.status}.", code="webhook_endpoint_failed"
        )
    return JsonResponse(
        {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": endpoint.id,
            "event_type": type,
            "status_code": answer.status,
            "success": True,
        }
    )


async def list_webhook_endpoint_failures(services: Services, request: ApiRequest) -> Response:
    """`GET /webhook_endpoints/{webhook_endpoint_id}/failures`: newest first."""
    endpoint = await _endpoint(services, request)
    with translate_store_errors(_KIND):
        failures = await services.webhooks.failures(endpoint.id)
    return JsonResponse(
        {
            "object": "list",
            "data": [_failure_object(failure) for failure in failures],
            "disabled_at": endpoint.disabled_at,
        }
    )


async def _endpoint(services: Services, request: ApiRequest) -> StoredEndpoint:
    with translate_store_errors(_KIND):
        return await services.webhooks.get(request.path["webhook_endpoint_id"])


def _check_url(services: Services, url: str) -> None:
    try:
        services.webhook_sender.check(url)
    except WebhookUrlRefused as error:
        raise InvalidRequest(str(error), param="url") from error


def _endpoint_object(endpoint: StoredEndpoint) -> "api.WebhookEndpoint":
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": [*endpoint.event_types],
        "signing_secret_hint": hint_of(endpoint.secret),
    }


def _with_secret(endpoint: StoredEndpoint) -> JsonObject:
    return {**_endpoint_object(endpoint), "signing_secret": endpoint.secret}


def _failure_object(failure: StoredFailure) -> JsonObject:
    return {
        "id": failure.id,
        "object": "webhook_endpoint.failure",
        "created_at": failure.created_at,
        "event_id": failure.event_id,
        "event_type": failure.event_type,
        "data": {"id": failure.subject_id},
        "attempts": failure.attempts,
        "status_code": failure.status_code,
        "reason": failure.reason,
        "disabled_endpoint": failure.is_disabling,
    }
