"""Compaction: a conversation as what its users said and a summary of the rest.

The summary is the model's own. It stands in a `compaction` item, which any later response reads as
something that the assistant said.
"""

import time
import uuid
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from llm_backend import errors
from llm_backend.backends.base import Usage
from llm_backend.backends.local import LocalModel
from llm_backend.contract.leaving import unless_gone
from llm_backend.contract.request import Request
from llm_backend.controllers.bridge.model import BridgedModel
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.responses.answering import shown_usage
from llm_backend.controllers.responses.compacting import summary_chat, summary_of
from llm_backend.controllers.responses.compaction import (
    Compaction,
    compaction_item,
    read_places,
)
from llm_backend.controllers.responses.create import relay_unread
from llm_backend.controllers.responses.input_parts import without_fetched
from llm_backend.controllers.responses.model import Model
from llm_backend.controllers.responses.question import Question, asked
from llm_backend.controllers.responses.request import named_as_sent
from llm_backend.controllers.routing import routed
from llm_backend.controllers.services import Services

__all__ = ["compactconversation"]

Json = dict[str, Any]


async def compactconversation(services: Services, request: Request) -> Response:
    """`POST /responses/compact`"""
    if request.query.get("beta") or request.body.get("model") is None:
        return await relay_unread(services, request)
    return await routed(services, request, here=_compacted, bridged=_compacted)


async def _compacted(
    services: Services, request: Request, model: LocalModel | BridgedModel
) -> Response:
    async with asked(services, model, _response_body(request.body)) as question:
        if not question.items:
            raise errors.InvalidRequest("There is nothing to compact.", param="input")
        summary, usage = await unless_gone(request, _summarised(model, question))
    items = [*question.before, *question.own]
    read = [items[place] for place in read_places(items)]
    users = [without_fetched(item) for item in read if item.get("role") == "user"]
    compaction = compaction_item(Compaction(summary=summary))
    return JsonResponse(
        {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*users, compaction],
            "usage": shown_usage(usage),
        }
    )


def _response_body(body: Mapping[str, Any]) -> Json:
    """The body of a response that goes on from the same."""
    return {name: value for name, value in body.items() if value is not None}


async def _summarised(model: Model, question: Question) -> tuple[str, Usage]:
    """What the model makes of the conversation. Raises `ApiError`, if it says nothing too."""
    pieces: list[str] = []
    chat = summary_chat(question.chat)
    with named_as_sent(question.tool_places):
        answer = await model.chat(chat)
    async with answer, aclosing(answer.chat(chat)) as deltas:
        async for delta in deltas:
            pieces.append(delta.content)
    return summary_of(pieces), answer.usage
