"""Single question to a model by GET, for shells and old clients."""

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response

from llm_backend import errors
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.create import complete_chat, create_chat_completion
from llm_backend.controllers.chat.translated import chat_request_of
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def ask_chat(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/ask`: the answer as text, as JSON, or as the events of a streamed chat."""
    query: api.AskChatQuery = request.query
    model = local_model(services, query.get("model"))
    name = query.get("model", model.card.id)
    # The default model is checked, too, though the query does not name it.
    services.access.admission.check(request.caller, name)
    body: api.CreateChatCompletionRequest = {
        "model": name,
        "messages": [{"role": "user", "content": query["question"]}],
        "stream": bool(query.get("stream")),
    }
    chat_request = chat_request_of(request, body)
    if body["stream"]:
        return await create_chat_completion(services, chat_request)
    await request.meter.switch_model(model.card.id)
    completion = await complete_chat(services, chat_request, model.with_meter(request.meter))
    if "application/json" in request.http.headers.get("accept", ""):
        return JsonResponse(completion)
    return PlainTextResponse(completion["choices"][0]["message"]["content"] or "")


def local_model(services: Services, name: str | None) -> LocalModel:
    """Returns the named local model, or the first one that writes; raises `InvalidRequest` if there
    is no such local model."""
    first = next((one for one in services.registry.local if one.takes_text), None)
    model = first if name is None else services.registry.for_model(name)
    if model is None:
        raise errors.InvalidRequest(
            "Only models of this server answer here; ask others by POST /v1/chat/completions.",
            param="model",
        )
    return model
