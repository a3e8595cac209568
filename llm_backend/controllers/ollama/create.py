"""Ollama's chats and generations, by a local model or by a bridged upstream."""

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.translated import (
    answer_translated,
    chat_request_of,
    with_thinking,
)
from llm_backend.controllers.ollama.chat_body import chat_body_of, field_of, prompt_chat_body_of
from llm_backend.controllers.ollama.lines import OllamaLines
from llm_backend.controllers.ollama.options import streams, unloads
from llm_backend.controllers.ollama.raw import answer_raw, refuse_raw
from llm_backend.controllers.ollama.request import check_enabled, with_known_model
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import Forbidden, UnsupportedField
from llm_backend.json_types import JsonMapping
from llm_backend.offload import offload
from llm_backend.sse import NDJSON

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    _Body: TypeAlias = api.CreateOllamaChatRequest | api.CreateOllamaCompletionRequest


async def create_ollama_chat(services: Services, request: ApiRequest) -> Response:
    """`POST /api/chat`"""
    check_enabled(services)
    request = with_known_model(services, request)
    body: api.CreateOllamaChatRequest = request.body
    if not body.get("messages"):
        return await _load_or_unload(services, request, is_chat=True)
    chat = chat_request_of(request, await offload(chat_body_of, body))
    return await _answer(services, chat, body, is_chat=True)


async def create_ollama_completion(services: Services, request: ApiRequest) -> Response:
    """`POST /api/generate`"""
    check_enabled(services)
    request = with_known_model(services, request)
    body: api.CreateOllamaCompletionRequest = request.body
    if body.get("raw") or body.get("suffix"):
        return await answer_by_route(services, request, local=answer_raw, bridged=refuse_raw)
    if not (body.get("prompt") or body.get("images")):
        return await _load_or_unload(services, request, is_chat=False)
    chat = chat_request_of(request, await offload(prompt_chat_body_of, body))
    return await _answer(services, chat, body, is_chat=False)


async def _answer(
    services: Services, chat_request: ApiRequest, body: "_Body", *, is_chat: bool
) -> Response:
    think = body.get("think")

    async def answer(
        services: Services, request: ApiRequest, model: LocalModel | BridgedModel
    ) -> Response:
        if isinstance(model, LocalModel):
            if think is not None:
                request = with_thinking(request, bool(think))
        elif body.get("logprobs"):
            raise UnsupportedField(
                f"`{body['model']}` is a model of an upstream, whose log probabilities this server "
                "does not translate; leave `logprobs` out.",
                param="logprobs",
            )
        else:
            model = model.with_body(_with_loose_schema(request.body))
        lines = OllamaLines(body["model"], is_chat=is_chat, shows_reasoning=think is not False)
        return await answer_translated(
            services, request, model, lines, streams=streams(body), rename=partial(field_of, body)
        )

    return await answer_by_route(services, chat_request, local=answer, bridged=answer)


def _with_loose_schema(body: JsonMapping) -> JsonMapping:
    """Returns a chat's body with a schema that is not strict: OpenAI's strict schemas require all
    properties and forbid others, which Ollama's need not do."""
    form = body.get("response_format")
    if not form or form["type"] != "json_schema":
        return body
    loose = {**form, "json_schema": {**form["json_schema"], "strict": False}}
    return {**body, "response_format": loose}


async def _load_or_unload(services: Services, request: ApiRequest, *, is_chat: bool) -> Response:
    """Answers a request without input, which loads the model, or unloads it with `keep_alive` 0."""
    body: _Body = request.body
    is_unload = unloads(body)
    if is_unload and not request.caller.may_administer:
        raise Forbidden("Only an admin key may unload a model.")

    async def answer(
        _services: Services, request: ApiRequest, model: LocalModel | BridgedModel
    ) -> Response:
        if isinstance(model, LocalModel):
            await cancel_on_disconnect(request, model.unload() if is_unload else model.load())
        lines = OllamaLines(body["model"], is_chat=is_chat, shows_reasoning=False)
        finished = lines.finish("unload" if is_unload else "load")
        if streams(body):
            return Response(exact_json.dumps(finished) + b"\n", media_type=NDJSON)
        return JsonResponse(finished)

    return await answer_by_route(services, request, local=answer, bridged=answer)
