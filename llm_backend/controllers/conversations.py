"""Conversations: lists of items that clients and responses append to."""

import time
import uuid
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.relay.routing import operation_names
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.page_query import page_arguments
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.response_items.items import item_list, public_form
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.stored_responses import to_stored_items
from llm_backend.store import Page, StoredConversation

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_conversation(services: Services, request: ApiRequest) -> Response:
    """`POST /conversations`: stored here; relayed if there are no local models and the upstream
    stores responses itself."""
    upstream = services.upstreams
    is_upstreams = upstream is not None and upstream.has_responses(operation_names(request))
    if is_upstreams and not services.registry.local:
        return await relay(services, request)
    body: api.CreateConversationBody = request.body or {}
    conversation = StoredConversation(
        id=f"conv_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        metadata=body.get("metadata") or {},
    )
    items = await services.responses.resolve_items(body.get("items"), "items")
    await services.listed_items.check(items)
    with translate_store_errors("conversation"):
        await services.responses.conversations.add(conversation, to_stored_items(items))
    return JsonResponse(_conversation_object(conversation))


@local_or_upstream("conversation", "conversation_id")
async def get_conversation(services: Services, request: ApiRequest) -> Response:
    """`GET /conversations/{conversation_id}`"""
    conversation = await services.responses.conversations.get(request.path["conversation_id"])
    return JsonResponse(_conversation_object(conversation))


@local_or_upstream("conversation", "conversation_id")
async def update_conversation(services: Services, request: ApiRequest) -> Response:
    """`POST /conversations/{conversation_id}`: replaces the metadata."""
    body: api.UpdateConversationBody = request.body
    conversation = await services.responses.conversations.update_metadata(
        request.path["conversation_id"], body["metadata"] or {}
    )
    return JsonResponse(_conversation_object(conversation))


@local_or_upstream("conversation", "conversation_id")
async def delete_conversation(services: Services, request: ApiRequest) -> Response:
    """`DELETE /conversations/{conversation_id}`"""
    conversation_id = request.path["conversation_id"]
    await services.responses.conversations.delete(conversation_id)
    return deleted_response(conversation_id, "conversation.deleted")


@local_or_upstream("conversation", "conversation_id")
async def create_conversation_items(services: Services, request: ApiRequest) -> Response:
    """`POST /conversations/{conversation_id}/items`"""
    body: api.CreateConversationItemsRequest = request.body
    query: api.CreateConversationItemsQuery = request.query
    items = await services.responses.resolve_items(body["items"], "items")
    await services.listed_items.check(items)
    added = await services.responses.conversations.add_items(
        request.path["conversation_id"], to_stored_items(items)
    )
    include = query.get("include") or ()
    return JsonResponse(item_list(Page(items=added, has_more=False), include))


@local_or_upstream("conversation", "conversation_id")
async def list_conversation_items(services: Services, request: ApiRequest) -> Response:
    """`GET /conversations/{conversation_id}/items`"""
    query: api.ListConversationItemsQuery = request.query
    page = await services.responses.conversations.items(
        request.path["conversation_id"], **page_arguments(query)
    )
    return JsonResponse(item_list(page, query.get("include") or ()))


@local_or_upstream("conversation", "conversation_id", part="item")
async def get_conversation_item(services: Services, request: ApiRequest) -> Response:
    """`GET /conversations/{conversation_id}/items/{item_id}`"""
    path = request.path
    query: api.GetConversationItemQuery = request.query
    stored = await services.responses.conversations.item(path["conversation_id"], path["item_id"])
    return JsonResponse(public_form(stored.item, query.get("include") or ()))


@local_or_upstream("conversation", "conversation_id", part="item")
async def delete_conversation_item(services: Services, request: ApiRequest) -> Response:
    """`DELETE /conversations/{conversation_id}/items/{item_id}`"""
    path = request.path
    conversation = await services.responses.conversations.delete_item(
        path["conversation_id"], path["item_id"]
    )
    return JsonResponse(_conversation_object(conversation))


def _conversation_object(conversation: StoredConversation) -> "api.ConversationResource":
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": dict(conversation.metadata),
    }
