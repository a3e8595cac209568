"""Compaction of a conversation to the messages of system and user and a summary of the rest.

The model itself writes the summary. A `compaction` item holds it, and any later response reads that
item as an assistant's message.
"""

import time
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from llm_backend import errors
from llm_backend.backends.base import Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.response_items.compaction_items import (
    Compaction,
    compaction_item,
    reading_order,
)
from llm_backend.controllers.response_items.input_parts import without_fetched
from llm_backend.controllers.responses.create import relay_without_model
from llm_backend.controllers.responses.input.chat_request import translate_error_paths
from llm_backend.controllers.responses.input.context_management import summary_chat, summary_of
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest, open_request
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.controllers.responses.loop.response_run import usage_object
from llm_backend.controllers.services import Services
from llm_backend.json_types import without_nulls

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_KEPT_ROLES = ("system", "developer", "user")


async def compactconversation(services: Services, request: ApiRequest) -> Response:
    """`POST /responses/compact`"""
    if request.query.get("beta") or request.body.get("model") is None:
        return await relay_without_model(services, request)
    return await answer_by_route(services, request, local=_compact, bridged=_compact)


async def _compact(
    services: Services, request: ApiRequest, model: LocalModel | BridgedModel
) -> Response:
    async with open_request(services, model, _response_body(request.body)) as resolved:
        if not resolved.items:
            raise errors.InvalidRequest("There is nothing to compact.", param="input")
        summary, usage = await cancel_on_disconnect(request, _summarize(model, resolved))
    items = [*resolved.context_items, *resolved.input_items]
    read = [items[index] for index in reading_order(items)]
    kept = [without_fetched(item) for item in read if item.get("role") in _KEPT_ROLES]
    compaction = compaction_item(Compaction(summary=summary))
    answer: api.CompactResource = {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": cast("Any", [*kept, compaction]),
        "usage": usage_object(usage),
    }
    return JsonResponse(answer)


def _response_body(body: "api.CompactResponseMethodPublicBody") -> "api.CreateResponse":
    """Returns the body of a response that continues the same conversation."""
    return cast("api.CreateResponse", without_nulls(body))


async def _summarize(model: ResponseModel, resolved: ResolvedRequest) -> tuple[str, Usage]:
    """Returns the model's summary of the conversation. Raises `ApiError`, also if it is empty."""
    pieces: list[str] = []
    chat = summary_chat(resolved.chat)
    with translate_error_paths(resolved.tool_indices):
        answer = await model.chat(chat)
    async with answer, aclosing(answer.chat_deltas(chat)) as deltas:
        async for delta in deltas:
            pieces.append(delta.content)
    return summary_of(pieces), answer.usage
