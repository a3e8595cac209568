"""Conversations: items that clients and responses append to."""

import time
import uuid
from typing import Any

from starlette.responses import Response

from llm_backend.contract.request import Request
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.kept_here import kept_here
from llm_backend.controllers.listing import page_wanted
from llm_backend.controllers.relay import relay
from llm_backend.controllers.responses.items import item_list, shown_item
from llm_backend.controllers.responses.memory import stored_items
from llm_backend.controllers.routing import operation_of
from llm_backend.controllers.services import Services
from llm_backend.controllers.store_errors import store_errors_translated
from llm_backend.store import Page, StoredConversation

__all__ = [
    "create_conversation",
    "create_conversation_items",
    "delete_conversation",
    "delete_conversation_item",
    "get_conversation",
    "get_conversation_item",
    "list_conversation_items",
    "update_conversation",
]

Json = dict[str, Any]


async def create_conversation(services: Services, request: Request) -> Response:
    """`POST /conversations`: kept here, unless only an upstream that keeps such itself could answer
    in it."""
    upstream = services.upstream
    is_upstreams = upstream is not None and upstream.keeps_responses(operation_of(request))
    if is_upstreams and not services.registry.local:
        return await relay(services, request)
    body = request.body or {}
    conversation = StoredConversation(
        id=f"conv_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        metadata=body.get("metadata") or {},
    )
    items = await services.responses.input_items(body.get("items"), "items")
    with store_errors_translated("conversation"):
        await services.responses.conversations.add(conversation, stored_items(items))
    return JsonResponse(_shown(conversation))


@kept_here("conversation", "conversation_id")
async def get_conversation(services: Services, request: Request) -> Response:
    """`GET /conversations/{conversation_id}`"""
    conversations = services.responses.conversations
    return JsonResponse(_shown(await conversations.get(request.path["conversation_id"])))


@kept_here("conversation", "conversation_id")
async def update_conversation(services: Services, request: Request) -> Response:
    """`POST /conversations/{conversation_id}`: puts new metadata in place of the old."""
    conversation = await services.responses.conversations.update_metadata(
        request.path["conversation_id"], request.body["metadata"] or {}
    )
    return JsonResponse(_shown(conversation))


@kept_here("conversation", "conversation_id")
async def delete_conversation(services: Services, request: Request) -> Response:
    """`DELETE /conversations/{conversation_id}`"""
    conversation_id = request.path["conversation_id"]
    await services.responses.conversations.delete(conversation_id)
    return JsonResponse({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@kept_here("conversation", "conversation_id")
async def create_conversation_items(services: Services, request: Request) -> Response:
    """`POST /conversations/{conversation_id}/items`"""
    items = stored_items(await services.responses.input_items(request.body["items"], "items"))
    added = await services.responses.conversations.add_items(request.path["conversation_id"], items)
    include = request.query.get("include") or ()
    return JsonResponse(item_list(Page(items=added, has_more=False), include))


@kept_here("conversation", "conversation_id")
async def list_conversation_items(services: Services, request: Request) -> Response:
    """`GET /conversations/{conversation_id}/items`"""
    query = request.query
    page = await services.responses.conversations.items(
        request.path["conversation_id"],
        **page_wanted(query),
    )
    return JsonResponse(item_list(page, query.get("include") or ()))


@kept_here("conversation", "conversation_id", part="item")
async def get_conversation_item(services: Services, request: Request) -> Response:
    """`GET /conversations/{conversation_id}/items/{item_id}`"""
    path = request.path
    stored = await services.responses.conversations.item(path["conversation_id"], path["item_id"])
    return JsonResponse(shown_item(stored.item, request.query.get("include") or ()))


@kept_here("conversation", "conversation_id", part="item")
async def delete_conversation_item(services: Services, request: Request) -> Response:
    """`DELETE /conversations/{conversation_id}/items/{item_id}`"""
    path = request.path
    conversation = await services.responses.conversations.delete_item(
        path["conversation_id"], path["item_id"]
    )
    return JsonResponse(_shown(conversation))


def _shown(conversation: StoredConversation) -> Json:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": dict(conversation.metadata),
    }
