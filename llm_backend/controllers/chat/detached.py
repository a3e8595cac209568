"""Operations on detached chats of all processes: list, follow, cancel."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def list_detached_chats(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/detached`: those being answered, the latest first."""
    found: list[api.DetachedChat] = []
    if project := request.caller.project:
        found = [chat.as_json() for chat in services.detached_chats.list_unanswered(project.id)]
        found += await services.detached_peers.list_unanswered(project.id)
    found.sort(key=lambda one: one["created"], reverse=True)
    answer: api.DetachedChatList = {"object": "list", "data": found}
    return JsonResponse(answer)


async def follow_detached_chat(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/detached/{chat_id}`: the chat with its messages, then its answer from the start.
    A client that disconnects changes nothing."""
    id, project_id = _chat_of(request)
    chat = services.detached_chats.find(id, project_id)
    other = None if chat else await services.detached_peers.follow(id, project_id)
    followed = chat or other
    if followed is None:
        raise _not_found(id)
    if followed.is_too_long:
        if other is not None:
            await other.close()
        raise InvalidRequest(
            f"The answer of the detached chat `{id}` is too long to be followed "
            "(`detached_chat_bytes`); if the chat is stored, it is there at its end."
        )
    return await event_stream(followed.events(), ending=b"")


async def cancel_detached_chat(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/detached/{chat_id}/cancel`: what has been answered is stored, as after a
    disconnect."""
    id, project_id = _chat_of(request)
    if chat := services.detached_chats.find(id, project_id):
        chat.cancel()
        return JsonResponse(chat.as_json())
    cancelled = await services.detached_peers.cancel(id, project_id)
    if cancelled is None:
        raise _not_found(id)
    return JsonResponse(cancelled)


def _chat_of(request: ApiRequest) -> tuple[str, str]:
    """Returns the ids of the chat and of the caller's project. Raises `NotFound` for an admin
    key, which has no project."""
    id: str = request.path["chat_id"]
    if request.caller.project is None:
        raise _not_found(id)
    return id, request.caller.project.id


def _not_found(id: str) -> NotFound:
    return NotFound(f"No detached chat `{id[:64]}` is being answered.")
