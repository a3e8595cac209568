"""Generations without a chat template: a prompt as it is (`raw`), or infill before a `suffix`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from starlette.responses import Response

from llm_backend.backends.base import ChatDelta
from llm_backend.backends.local.admitted_generation import AdmittedGeneration
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.translated import answer_rendered
from llm_backend.controllers.generation.request_translation import prompts_from
from llm_backend.controllers.ollama.chat_body import check_completion
from llm_backend.controllers.ollama.lines import OllamaLines
from llm_backend.controllers.ollama.options import generation_fields, streams
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.services import Services
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_CHAT_FIELDS = ("system", "images", "format", "think", "logprobs")


async def answer_raw(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    """Answers a generation by a text completion, which is not stored."""
    body: api.CreateOllamaCompletionRequest = request.body
    completion_body = model.with_defaults(completion_body_of(body))
    (prompt,) = prompts_from(completion_body, choices_limit=1, prompts_limit=1)
    (answer,) = await cancel_on_disconnect(request, model.complete([prompt]))
    lines = OllamaLines(body["model"], is_chat=False, shows_reasoning=False)
    streamed = streams(body)
    return await answer_rendered(request, answer, _deltas(answer), lines, streams=streamed)


async def refuse_raw(services: Services, request: ApiRequest, model: BridgedModel) -> Response:
    """Raises `UnsupportedField`: an upstream applies the chat template itself."""
    name = "raw" if request.body.get("raw") else "suffix"
    raise UnsupportedField(
        f"`{request.body['model']}` is a model of an upstream, which is reached through chats; "
        f"leave `{name}` out.",
        param=name,
    )


def completion_body_of(
    body: "api.CreateOllamaCompletionRequest",
) -> "api.CreateCompletionRequest":
    """Returns the body of the completion that answers a generation without a chat template.

    Raises `UnsupportedField` for a field that only chats have.
    """
    check_completion(body)
    fields: JsonMapping = body
    for name in _CHAT_FIELDS:
        if fields.get(name):
            raise UnsupportedField(
                f"`{name}` needs the chat template; leave it out, or `raw` and `suffix`.",
                param=name,
            )
    completion = {
        "max_tokens": -1,
        **generation_fields(body),
        "prompt": body.get("prompt") or "",
        "suffix": body.get("suffix") or None,
    }
    return cast("api.CreateCompletionRequest", completion)


async def _deltas(answer: AdmittedGeneration) -> AsyncGenerator[ChatDelta, None]:
    async with answer, aclosing(answer.text_deltas()) as deltas:
        async for delta in deltas:
            yield ChatDelta(choice=0, content=delta.text, finish_reason=delta.finish_reason)
