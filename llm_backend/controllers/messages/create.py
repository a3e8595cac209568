"""Messages by a local model or by an upstream that answers chats or responses; token counts."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import run_while_connected
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.create import AnyAnswer, ChatTurn, begin_turn
from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.generation.structured_output import structure_from
from llm_backend.controllers.generation.tool_call_ids import check_messages
from llm_backend.controllers.messages.chat_body import chat_body_of, thinks
from llm_backend.controllers.messages.events import MessageEvents
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError, Unsupported, UnsupportedField
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload
from llm_backend.sse import encode, encode_error

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_anthropic_message(services: Services, request: ApiRequest) -> Response:
    """`POST /messages`"""
    _check_enabled(services)
    message_body: api.CreateAnthropicMessageRequest = request.body
    chat_request = replace(request, body=await offload(chat_body_of, message_body))
    shows_reasoning = thinks(message_body)

    async def answer(
        services: Services, request: ApiRequest, model: LocalModel | BridgedModel
    ) -> Response:
        return await _answer(services, request, model, shows_reasoning=shows_reasoning)

    return await answer_by_route(services, chat_request, local=answer, bridged=answer)


async def _answer(
    services: Services,
    request: ApiRequest,
    model: LocalModel | BridgedModel,
    *,
    shows_reasoning: bool,
) -> Response:
    body: api.CreateChatCompletionRequest = request.body
    if isinstance(model, LocalModel):
        switches = {"enable_thinking": shows_reasoning, "thinking": shows_reasoning}
        request = replace(request, body={**body, "chat_template_kwargs": switches})
    turn, answer = await begin_turn(services, request, model)
    events = MessageEvents(body["model"], shows_reasoning=shows_reasoning)
    stream = _events(turn, answer, events)
    if body.get("stream"):
        return await event_stream(stream, ending=b"", failure=_failure)
    return JsonResponse(await run_while_connected(request, _message(stream, events)))


async def _events(
    turn: ChatTurn, answer: AnyAnswer, events: MessageEvents
) -> AsyncGenerator[bytes, None]:
    """Yields the encoded events of an answer, which is stored as a chat before the last one."""
    yield _encode(events.begin(answer.usage))
    async with aclosing(turn.stored_deltas(answer)) as deltas:
        async for delta in deltas:
            for event in events.read(delta):
                yield _encode(event)
    for event in events.end(answer.usage):
        yield _encode(event)


async def _message(stream: AsyncGenerator[bytes, None], events: MessageEvents) -> JsonObject:
    async with aclosing(stream):
        async for _ in stream:
            pass  # the events add up to the message
    return events.message()


def _encode(event: JsonObject) -> bytes:
    return encode(exact_json.dumps(event), event["type"])


def _failure(error: ApiError) -> bytes:
    return encode_error("/messages", error)


async def count_anthropic_message_tokens(services: Services, request: ApiRequest) -> Response:
    """`POST /messages/count_tokens`"""
    _check_enabled(services)
    chat_request = replace(request, body=await offload(chat_body_of, request.body))
    return await answer_by_route(services, chat_request, local=_count, bridged=_refuse_count)


async def _count(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateChatCompletionRequest = request.body
    await offload(check_messages, body["messages"])
    filled = model.with_defaults(body)
    structure = await structure_from(filled, nodes_limit=services.settings.schema_nodes_limit)
    limit = services.settings.choices_limit
    chat = await offload(chat_from, filled, choices_limit=limit, grammar=structure.grammar)
    count = await run_while_connected(request, model.count_prompt_tokens(chat))
    answer: api.AnthropicMessageTokenCount = {"input_tokens": count}
    return JsonResponse(answer)


async def _refuse_count(services: Services, request: ApiRequest, model: BridgedModel) -> Response:
    raise UnsupportedField(
        f"`{request.body['model']}` is a model of an upstream, whose tokens are counted only when "
        "it answers.",
        param="model",
    )


def _check_enabled(services: Services) -> None:
    if not services.settings.messages_api:
        raise Unsupported("Anthropic's Messages are switched off here (`messages_api`).")
