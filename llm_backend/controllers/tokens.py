"""Operations of a local model's tokenizer and chat template: tokenize, detokenize, render."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.base import Chat
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.ask import local_model
from llm_backend.controllers.generation.deprecated_functions import (
    translate_function_errors,
    with_tools,
)
from llm_backend.controllers.generation.field_aliases import with_common_names
from llm_backend.controllers.generation.request_translation import (
    chat_from,
    check_supported_fields,
    tokens_from,
)
from llm_backend.controllers.generation.structured_output import schema_limits, structure_from
from llm_backend.controllers.generation.tool_call_ids import check_messages
from llm_backend.controllers.relay.routing import LocalHandler, answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import ModelNotFound
from llm_backend.offload import offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def tokenize(services: Services, request: ApiRequest) -> Response:
    """`POST /tokenize`"""
    return await _answer_by_model(services, request, local=_tokenize)


async def _answer_by_model(
    services: Services, request: ApiRequest, *, local: LocalHandler
) -> Response:
    """Answers with the model that the body names, if the caller's project may use it."""
    name = request.body["model"]
    if not services.access.admission.may_use(request.caller, name):
        raise ModelNotFound(name)
    return await answer_by_route(services, request, local=local)


async def _tokenize(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.TokenizeRequest = request.body
    check_supported_fields(body, {"model", "text", "add_special", "parse_special"})
    tokens = await cancel_on_disconnect(
        request,
        model.tokenize(
            body["text"],
            parse_special=bool(body.get("parse_special")),
            add_bos=bool(body.get("add_special")),
        ),
    )
    answer: api.Tokenization = {
        "object": "tokenization",
        "model": body["model"],
        "count": len(tokens),
        "tokens": tokens,
    }
    return JsonResponse(answer)


async def count_prompt_tokens(services: Services, request: ApiRequest) -> Response:
    """`POST /api/v1/token-count`"""
    body: api.CountPromptTokensRequest = request.body
    model = local_model(services, body.get("model"))
    if not services.access.admission.may_use(request.caller, model.card.id):
        raise ModelNotFound(model.card.id)
    check_supported_fields(body, {"model", "prompt"})
    counting = model.tokenize(body["prompt"], parse_special=False, add_bos=False)
    tokens = await cancel_on_disconnect(request, counting)
    return JsonResponse({"results": [{"tokens": len(tokens)}]})


async def detokenize(services: Services, request: ApiRequest) -> Response:
    """`POST /detokenize`"""
    return await _answer_by_model(services, request, local=_detokenize)


async def _detokenize(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.DetokenizeRequest = request.body
    check_supported_fields(body, {"model", "tokens"})
    tokens = await offload(tokens_from, body["tokens"], "tokens")
    text = await cancel_on_disconnect(request, model.detokenize(tokens))
    answer: api.Detokenization = {
        "object": "detokenization",
        "model": body["model"],
        "text": text,
    }
    return JsonResponse(answer)


async def render_chat_prompt(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/prompt`: the rendered prompt of `POST /chat/completions` with the same body."""
    return await _answer_by_model(services, request, local=_render)


async def chat_to_count(
    services: Services, body: "api.CreateChatCompletionRequest", model: LocalModel
) -> Chat:
    """Returns the chat as `POST /chat/completions` makes it. Raises `InvalidRequest`."""
    await offload(check_messages, body["messages"])
    filled = model.with_defaults(with_common_names(with_tools(body)))
    structure = await structure_from(filled, schema_limits(services.settings))
    limit = services.settings.choices_limit
    with translate_function_errors(body):
        return await offload(chat_from, filled, choices_limit=limit, structure=structure)


async def _render(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateChatCompletionRequest = request.body
    chat = await chat_to_count(services, body, model)
    rendered = await cancel_on_disconnect(request, model.render_chat(chat))
    answer: api.ChatPrompt = {
        "object": "chat.prompt",
        "model": body["model"],
        "prompt": rendered.text,
        "count": len(rendered.tokens),
        "tokens": list(rendered.tokens),
    }
    return JsonResponse(answer)
