"""Operations on detached chats: list, follow, cancel."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.detached_chats import DetachedChat
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.offload import add_weight, offload
from llm_backend.sse import encode, split_long

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def list_detached_chats(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/detached`: those being answered, the latest first."""
    chats = services.detached_chats.of(request.caller)
    answer: api.DetachedChatList = {"object": "list", "data": [_render(chat) for chat in chats]}
    return JsonResponse(answer)


async def follow_detached_chat(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/detached/{chat_id}`: the chat with its messages, then its answer from the start.
    A client that disconnects changes nothing."""
    chat = _find(services, request)
    if chat.is_too_long:
        raise InvalidRequest(
            f"The answer of the detached chat `{chat.id}` is too long to be followed "
            "(`detached_chat_bytes`); it is stored at its end."
        )
    return await event_stream(_follow(chat), ending=b"")


async def cancel_detached_chat(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/detached/{chat_id}/cancel`: what has been answered is stored, as after a
    disconnect."""
    chat = _find(services, request)
    chat.cancel()
    return JsonResponse(_render(chat))


async def _follow(chat: DetachedChat) -> AsyncGenerator[bytes, None]:
    messages = (chat.request or {}).get("messages")
    add_weight(messages)
    event = await offload(lambda: encode(exact_json.dumps(_render(chat) | {"messages": messages})))
    for piece in split_long(event):
        yield piece
    async with aclosing(chat.answer()) as answer:
        async for part in answer:
            yield part


def _find(services: Services, request: ApiRequest) -> DetachedChat:
    id = request.path["chat_id"]
    chat = services.detached_chats.find(id, request.caller)
    if chat is None:
        raise NotFound(f"No detached chat `{id[:64]}` is being answered.")
    return chat


def _render(chat: DetachedChat) -> "api.DetachedChat":
    request = chat.request or {}
    return {
        "object": "chat.detached",
        "id": chat.id,
        "created": chat.created_at,
        "model": request.get("model"),
        "metadata": request.get("metadata"),
    }
