"""Answers to requests of other APIs by chats: Anthropic's Messages, and Ollama's API."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from starlette.responses import Response

from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.model_protocol import THINKING_VARIABLES
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.create import AnyAnswer, begin_turn
from llm_backend.controllers.generation.field_paths import RenameField, rename_fields
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.rendering.event_stream import EVENT_STREAM, event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError
from llm_backend.json_types import JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


class AnswerRenderer(Protocol):
    """Renders the deltas of one answer as the objects of another API's stream, and collects the
    whole answer."""

    media_type: str = EVENT_STREAM

    def begin(self, usage: Usage) -> Iterable[JsonObject]: ...
    def read(self, delta: ChatDelta) -> Iterable[JsonObject]: ...
    def end(self, usage: Usage) -> Iterable[JsonObject]: ...
    def whole(self) -> JsonObject: ...
    def encode(self, part: JsonObject) -> bytes: ...
    def encode_error(self, error: ApiError) -> bytes: ...


def chat_request_of(request: ApiRequest, body: "api.CreateChatCompletionRequest") -> ApiRequest:
    """Returns the request with this chat as its body, not to be stored with zero data retention."""
    project = request.caller.project
    if project is not None and project.has_zero_retention:
        body = {**body, "store": False}
    return replace(request, body=body)


async def answer_translated(
    services: Services,
    request: ApiRequest,
    model: LocalModel | BridgedModel,
    renderer: AnswerRenderer,
    *,
    streams: bool,
    rename: RenameField,
) -> Response:
    """Answers the chat of a request in the form of another API, streamed or whole. The chat is
    stored before the last part is sent. Errors name the API's fields by `rename`."""
    with rename_fields(rename):
        turn, answer = await begin_turn(services, request, model)
    deltas = turn.stored_deltas(answer)
    return await answer_rendered(request, answer, deltas, renderer, streams=streams)


async def answer_rendered(
    request: ApiRequest,
    answer: AnyAnswer,
    deltas: AsyncGenerator[ChatDelta, None],
    renderer: AnswerRenderer,
    *,
    streams: bool,
) -> Response:
    """Renders the deltas of an answer, streamed or whole."""
    parts = _parts(answer, deltas, renderer)
    if streams:
        encoded, failure = _encode(parts, renderer), renderer.encode_error
        return await event_stream(
            encoded, ending=b"", failure=failure, media_type=renderer.media_type
        )
    return JsonResponse(await cancel_on_disconnect(request, _whole(parts, renderer)))


async def _parts(
    answer: AnyAnswer, deltas: AsyncGenerator[ChatDelta, None], renderer: AnswerRenderer
) -> AsyncGenerator[JsonObject, None]:
    async with aclosing(deltas):
        try:
            for part in renderer.begin(answer.usage):
                yield part
        except BaseException:  # the client left, and `deltas` that have not begun close no answer
            async with answer:
                raise
        async for delta in deltas:
            for part in renderer.read(delta):
                yield part
    for part in renderer.end(answer.usage):
        yield part


async def _whole(parts: AsyncGenerator[JsonObject, None], renderer: AnswerRenderer) -> JsonObject:
    async with aclosing(parts):
        async for _ in parts:
            pass  # the renderer collects them
    return renderer.whole()


async def _encode(
    parts: AsyncGenerator[JsonObject, None], renderer: AnswerRenderer
) -> AsyncGenerator[bytes, None]:
    async with aclosing(parts):
        async for part in parts:
            yield renderer.encode(part)


def with_thinking(request: ApiRequest, is_on: bool, effort: str | None = None) -> ApiRequest:
    """Returns the request with reasoning switched on or off, and with this effort. A local model
    whose template lacks such a switch, or knows no efforts, ignores them."""
    variables: JsonObject = dict.fromkeys(THINKING_VARIABLES, is_on)
    if effort is not None:
        variables["reasoning_effort"] = effort
    return replace(request, body={**request.body, "chat_template_kwargs": variables})
