"""Search of stored chats."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import list_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import Unsupported
from llm_backend.json_types import JsonObject
from llm_backend.store import FoundChat

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def search_chat_completions(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/search`"""
    query: api.SearchChatCompletionsQuery = request.query
    if not services.settings.chat_search_characters:
        raise Unsupported("This server does not search chats: `chat_search_characters` is 0.")
    await services.chat_recorder.flush()  # so that a chat that has just been answered is found
    with translate_store_errors("chat completion"):
        page = await services.chat_search.find(
            query["query"],
            metadata=query.get("metadata"),
            after=query.get("after"),
            limit=query.get("limit", 20),
        )
    return list_response(page, _match)


def _match(chat: FoundChat) -> JsonObject:
    return {
        "object": "chat.completion.match",
        "id": chat.id,
        "created": chat.created_at,
        "model": chat.model,
        "title": chat.title,
        "metadata": dict(chat.metadata),
        "excerpt": [{"text": one.text, "is_match": one.is_match} for one in chat.excerpt],
    }
