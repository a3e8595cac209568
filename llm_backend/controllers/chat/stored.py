"""Stored chats: store, list, get, messages, update metadata, delete."""

import time
import uuid
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import (
    JsonResponse,
    deleted_response,
    list_response,
)
from llm_backend.controllers.rendering.page_query import page_arguments
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import Forbidden, Unsupported
from llm_backend.json_types import JsonObject
from llm_backend.store import ChatStore, StoredChat, StoredMessage

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def store_chat_completion(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/stored`: a chat that the client answered. Raises `Unsupported` if the server
    stores no chats, and `Forbidden` if the project's data retention is zero."""
    body: api.StoreChatCompletionRequest = request.body
    if services.settings.store_chats == "never":
        raise Unsupported("This server stores no chats (`store_chats` is `never`).")
    if request.caller.has_zero_retention:
        raise Forbidden(
            f"The data retention of project `{request.caller.project_id}` is zero, so its chats "
            "are not stored."
        )
    completion: JsonObject = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"message": {"content": body["answer"]}}],
    }
    given = {name: value for name, value in body.items() if name != "answer"}
    await services.chat_recorder.store({**given, "store": True}, completion)
    with translate_store_errors("chat completion"):
        chat = await services.chat_recorder.chats.get(completion["id"])
    return JsonResponse(_completion(chat))


async def list_chat_completions(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/completions`"""
    query: api.ListChatCompletionsQuery = request.query
    with translate_store_errors("chat completion"):
        page = await (await _chats(services)).list(
            model=query.get("model"),
            metadata=query.get("metadata"),
            **page_arguments(query, order="asc"),
        )
    return list_response(page, _completion)


async def get_chat_completion(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/completions/{completion_id}`"""
    with translate_store_errors("chat completion"):
        chat = await (await _chats(services)).get(request.path["completion_id"])
    return JsonResponse(_completion(chat))


async def get_chat_completion_messages(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/completions/{completion_id}/messages`"""
    query: api.GetChatCompletionMessagesQuery = request.query
    with translate_store_errors("chat completion"):
        page = await (await _chats(services)).messages(
            request.path["completion_id"],
            **page_arguments(query, order="asc"),
        )
    return list_response(page, _message)


async def update_chat_completion(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/completions/{completion_id}`: replaces the metadata. Raises `Conflict` unless the
    completion has the expected pairs."""
    body: api.UpdateChatCompletionRequest = request.body
    with translate_store_errors("chat completion"):
        chat = await (await _chats(services)).update_metadata(
            request.path["completion_id"], body["metadata"] or {}, body.get("expected_metadata")
        )
    return JsonResponse(_completion(chat))


async def delete_chat_completion(services: Services, request: ApiRequest) -> Response:
    """`DELETE /chat/completions/{completion_id}`"""
    chat_id = request.path["completion_id"]
    with translate_store_errors("chat completion"):
        await (await _chats(services)).delete(chat_id)
    return deleted_response(chat_id, "chat.completion.deleted")


async def _chats(services: Services) -> ChatStore:
    """Returns the chat store once pending writes of answered chats are done."""
    await services.chat_recorder.flush()
    return services.chat_recorder.chats


def _completion(chat: StoredChat) -> JsonObject:
    return {**chat.response, "metadata": dict(chat.metadata), "status": chat.status.value}


def _message(stored: StoredMessage) -> JsonObject:
    """Returns an input message in the form of the document's message list."""
    content = stored.message.get("content")
    parts = content if isinstance(content, list) else None
    return {
        "refusal": None,
        **stored.message,
        "id": stored.id,
        "content": None if parts is not None else content,
        "content_parts": parts,
    }
