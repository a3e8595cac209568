"""Anthropic's Messages, from local models or from chats or responses of upstreams; token counts."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.translated import (
    answer_translated,
    chat_request_of,
    with_thinking,
)
from llm_backend.controllers.generation.field_paths import rename_fields
from llm_backend.controllers.messages.chat_body import (
    budget_effort,
    chat_body_of,
    field_of,
    shows_thinking,
    thinks,
)
from llm_backend.controllers.messages.events import MessageEvents
from llm_backend.controllers.messages.known_fields import check_fields
from llm_backend.controllers.messages.relayed import relay_message
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.tokens import chat_to_count
from llm_backend.errors import Unsupported, UnsupportedField
from llm_backend.offload import offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_anthropic_message(services: Services, request: ApiRequest) -> Response:
    """`POST /messages`"""
    _check_enabled(services)
    message_body: api.CreateAnthropicMessageRequest = request.body
    shows_reasoning = shows_thinking(message_body)

    async def answer(
        services: Services, request: ApiRequest, model: LocalModel | BridgedModel
    ) -> Response:
        check_fields(message_body)
        _check_last_message(message_body)
        body = await offload(chat_body_of, message_body)
        request = chat_request_of(request, body)
        if isinstance(model, LocalModel):
            request = _with_effort(request, message_body)
        else:
            model = model.with_body(request.body)
        events = MessageEvents(body["model"], shows_reasoning=shows_reasoning)
        streams = bool(body.get("stream"))
        return await answer_translated(
            services,
            request,
            model,
            events,
            streams=streams,
            rename=partial(field_of, message_body),
        )

    return await answer_by_route(
        services, request, local=answer, bridged=answer, relay_with=relay_message
    )


async def count_anthropic_message_tokens(services: Services, request: ApiRequest) -> Response:
    """`POST /messages/count_tokens`"""
    _check_enabled(services)
    return await answer_by_route(services, request, local=_count, bridged=_refuse_count)


async def _count(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    check_fields(request.body)
    body = await offload(chat_body_of, request.body)
    chat_request = _with_effort(replace(request, body=body), request.body)
    with rename_fields(partial(field_of, request.body)):
        chat = await chat_to_count(services, chat_request.body, model)
    count = await cancel_on_disconnect(request, model.count_prompt_tokens(chat))
    answer: api.AnthropicMessageTokenCount = {"input_tokens": count}
    return JsonResponse(answer)


def _with_effort(
    request: ApiRequest, message_body: "api.CountAnthropicMessageTokensRequest"
) -> ApiRequest:
    """Moves the effort of a message from the chat's body to a template variable: clients send it to
    every model, and a model that does not reason ignores template variables."""
    body = dict(request.body)
    effort = body.pop("reasoning_effort", None) or budget_effort(message_body)
    return with_thinking(replace(request, body=body), thinks(message_body), effort)


async def _refuse_count(services: Services, request: ApiRequest, model: BridgedModel) -> Response:
    raise UnsupportedField(
        f"`{request.body['model']}` is a model of an upstream, whose tokens are counted only when "
        "it answers.",
        param="model",
    )


def _check_last_message(body: "api.CreateAnthropicMessageRequest") -> None:
    """Refuses to continue an assistant message: the model would answer it instead."""
    last = len(body["messages"]) - 1
    if body["messages"][last]["role"] == "assistant":
        raise UnsupportedField(
            "This model cannot continue a begun answer; end with a message of the user.",
            param=f"messages[{last}]",
        )


def _check_enabled(services: Services) -> None:
    if not services.settings.messages_api:
        raise Unsupported("Anthropic's Messages are switched off here (`messages_api`).")
