"""Tokenize and detokenize with a local model, and render the prompt of a chat."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import unless_gone
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.deprecated_functions import named_as_functions, with_tools
from llm_backend.controllers.generation.generation_request import (
    chat_from,
    refuse_others,
    tokens_from,
)
from llm_backend.controllers.generation.structured_output import structure_from
from llm_backend.controllers.generation.tool_call_ids import check_messages
from llm_backend.controllers.relay.routing import Here, answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import ModelNotFound
from llm_backend.offload import offload

__all__ = ["detokenize", "render_chat_prompt", "tokenize"]

Body = Mapping[str, Any]


async def tokenize(services: Services, request: ApiRequest) -> Response:
    """`POST /tokenize`"""
    return await _with_model(services, request, here=_tokenize)


async def _with_model(services: Services, request: ApiRequest, *, here: Here) -> Response:
    """Answers with the model that the body names, if the caller's project may use it."""
    name = request.body["model"]
    if not services.access.admission.may_use(request.caller, name):
        raise ModelNotFound(name)
    return await answer_by_route(services, request, here=here)


async def _tokenize(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: Body = request.body
    refuse_others(body, {"model", "text", "add_special", "parse_special"})
    tokens = await unless_gone(
        request,
        model.tokenize(
            body["text"],
            parse_special=bool(body.get("parse_special")),
            add_bos=bool(body.get("add_special")),
        ),
    )
    answer = {"object": "tokenization", "model": body["model"]}
    return JsonResponse({**answer, "count": len(tokens), "tokens": tokens})


async def detokenize(services: Services, request: ApiRequest) -> Response:
    """`POST /detokenize`"""
    return await _with_model(services, request, here=_detokenize)


async def _detokenize(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: Body = request.body
    refuse_others(body, {"model", "tokens"})
    tokens = await offload(tokens_from, body["tokens"], "tokens")
    text = await unless_gone(request, model.detokenize(tokens))
    return JsonResponse({"object": "detokenization", "model": body["model"], "text": text})


async def render_chat_prompt(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/prompt`: the rendered prompt of `POST /chat/completions` with the same body."""
    return await _with_model(services, request, here=_render)


async def _render(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: Body = request.body
    await offload(check_messages, body["messages"])
    filled = model.filled(with_tools(body))
    structure = await structure_from(filled, nodes_limit=services.settings.schema_nodes_limit)
    limit, grammar = services.settings.choices_limit, structure.grammar
    with named_as_functions(body):
        chat = await offload(chat_from, filled, choices_limit=limit, grammar=grammar)
    read = await unless_gone(request, model.rendered(chat))
    answer = {"object": "chat.prompt", "model": body["model"], "prompt": read.text}
    return JsonResponse({**answer, "count": len(read.tokens), "tokens": read.tokens})
