"""Edits of texts by an instruction: OpenAI's former operation, answered by chats."""

from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.create import complete_chat
from llm_backend.controllers.generation.request_translation import check_supported_fields
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_FIELDS = {"model", "instruction", "input", "n", "temperature", "top_p"}
_TASK = "Edit the text of the user as the instruction says. Write the edited text and nothing else."


async def create_edit(services: Services, request: ApiRequest) -> Response:
    """`POST /edits`"""
    return await answer_by_route(services, request, local=_edit)


async def _edit(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateEditRequest = request.body
    check_supported_fields(body, _FIELDS)
    chat: api.CreateChatCompletionRequest = {
        "model": body["model"],
        "messages": [
            {"role": "system", "content": f"{_TASK}\n\nInstruction: {body['instruction']}"},
            {"role": "user", "content": body.get("input") or ""},
        ],
        "n": body.get("n"),
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "store": False,
    }
    completion = await complete_chat(services, replace(request, body=chat), model)
    edit: api.Edit = {
        "object": "edit",
        "created": completion["created"],
        "choices": [
            {"text": choice["message"]["content"] or "", "index": choice["index"]}
            for choice in completion["choices"]
        ],
        "usage": completion["usage"],
    }
    return JsonResponse(edit)
