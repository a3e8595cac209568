"""Moderations: classifies inputs by asking a local model a yes/no question per category."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import Image
from llm_backend.backends.local.yes_no import YesNoQuestion, probability_of_yes
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.request_translation import check_supported_fields
from llm_backend.controllers.moderations.categories import (
    CATEGORIES,
    IMAGE_CATEGORIES,
    ModerationInput,
    question_builder,
)
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.engine.messages import Priority
from llm_backend.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    Unsupported,
    UnsupportedField,
)
from llm_backend.offload import is_request_large, offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


FIELDS = {"input", "model"}
OPERATION = ("createModeration", "Moderations")
OPENAIS_MODELS = (
    "omni-moderation-latest",  # OpenAI's default
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
)
FLAG_THRESHOLD = 0.5  # probability of yes
# questions of one request: enough to fill a batch without filling the queue
MAX_CONCURRENT_QUESTIONS = 16

_IMAGE_CATEGORY = min(IMAGE_CATEGORIES)


async def create_moderation(services: Services, request: ApiRequest) -> Response:
    """`POST /moderations`"""
    body = {**request.body, "model": moderation_model_name(services, request.body)}
    return await answer_by_route(services, replace(request, body=body), local=_judge_inputs)


async def _judge_inputs(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    limit = services.settings.prompts_limit
    return JsonResponse(
        await cancel_on_disconnect(request, moderate(model, request.body, inputs_limit=limit))
    )


def moderation_model_name(services: Services, body: "api.CreateModerationRequest") -> str:
    """Returns the name of the model that judges. OpenAI's model names mean the setting
    `moderation_model`, unless a served model has that name, or only an upstream can judge an image.

    Raises `Unsupported` if there is neither such a model nor an upstream.
    """
    name = str(body.get("model") or OPENAIS_MODELS[0])
    if name not in OPENAIS_MODELS or services.registry.is_own_name(name):
        return name
    if services.settings.moderation_model is not None and not _needs_upstream(services, name, body):
        return services.settings.moderation_model
    if services.upstreams is None:
        raise Unsupported(
            "No model is configured for moderation: set `moderation_model` "
            "(LLM_BACKEND_MODERATION_MODEL) to the name of a chat model that is served here, or "
            "OPENAI_API_KEY to have it relayed.",
            param="model",
        )
    return name


def _needs_upstream(services: Services, name: str, body: "api.CreateModerationRequest") -> bool:
    """True if the input has an image, the local judge has no vision and the upstream serves the
    model."""
    upstream = services.upstreams
    if upstream is None or not any(_is_image(part) for part in body["input"]):
        return False
    configured = services.settings.moderation_model
    local_model = None if configured is None else services.registry.for_model(configured)
    if local_model is not None and local_model.accepts_images:
        return False
    return upstream.serves(name, OPERATION)


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part["type"] == "image_url"


async def moderate(
    model: LocalModel,
    body: "api.CreateModerationRequest",
    *,
    inputs_limit: int,
    priority: Priority = Priority.INTERACTIVE,
) -> "api.CreateModerationResponse":
    """Classifies the inputs of a moderation request by this model; returns the response object."""
    check_supported_fields({"model": model.card.id, **body}, FIELDS)
    model = model.as_personality(None)  # the question holds the whole instruction
    inputs = _inputs(body["input"], inputs_limit)
    _check_images(model, inputs.values())
    build_question, semaphore = (
        question_builder(await model.template()),
        asyncio.Semaphore(MAX_CONCURRENT_QUESTIONS),
    )

    async def score(field: str, content: ModerationInput, category: str) -> float:
        if not content.types:
            return 0.0
        async with semaphore:
            return await _score(
                model, await offload(build_question, content, category), field, priority
            )

    if is_request_large():  # one question first, so that an overlong input fails only once
        for field, one in inputs.items():
            await score(field, one, _IMAGE_CATEGORY)
    try:
        async with asyncio.TaskGroup() as group:
            scores = [
                {
                    category: group.create_task(score(field, one.for_category(category), category))
                    for category in CATEGORIES
                }
                for field, one in inputs.items()
            ]
    except ExceptionGroup as failed:  # the first failure cancelled the other tasks
        raise failed.exceptions[0] from None
    return {
        "id": f"modr-{uuid.uuid4().hex}",
        "model": model.card.id,
        "results": [
            _result({category: one.result() for category, one in each.items()}, content)
            for each, content in zip(scores, inputs.values(), strict=True)
        ],
    }


def _inputs(inputs: Any, limit: int) -> dict[str, ModerationInput]:
    """Parses the inputs, by their field names: one text, each text of a list, or a list of parts as
    one input."""
    if isinstance(inputs, str):
        return {"input": ModerationInput(text=inputs)}
    if not 1 <= len(inputs) <= limit:
        raise InvalidRequest(
            f"`input` holds {len(inputs)} inputs; it must hold 1 to {limit}.", param="input"
        )
    if isinstance(inputs[0], str):
        return {f"input[{index}]": ModerationInput(text=text) for index, text in enumerate(inputs)}
    images = [
        Image(url=part["image_url"]["url"], param=f"input[{index}].image_url")
        for index, part in enumerate(inputs)
        if _is_image(part)
    ]
    texts = [part["text"] for part in inputs if not _is_image(part)]
    return {"input": ModerationInput(text="\n".join(texts) if texts else None, images=images)}


def _check_images(model: LocalModel, inputs: Iterable[ModerationInput]) -> None:
    for content in inputs:
        if content.images and not model.accepts_images:
            raise UnsupportedField(
                f"`{model.card.id}`, which judges here, sees no images; send text only.",
                param=content.images[0].param,
            )


async def _score(
    model: LocalModel, question: YesNoQuestion, field: str, priority: Priority
) -> float:
    try:
        return await probability_of_yes(model, question, priority)
    except ContextLengthExceeded as error:
        raise ContextLengthExceeded(error.message, param=field) from error
    except InvalidRequest as error:
        if error.param != "reasoning_effort":
            raise
        raise InvalidRequest(
            f"`{model.card.id}` always reasons before it answers, so it cannot be asked for a yes "
            "or no: have another model judge.",
            param="model",
        ) from error


def _result(
    scores: Mapping[str, float], content: ModerationInput
) -> "api.CreateModerationResponseResult":
    flags = {category: score >= FLAG_THRESHOLD for category, score in scores.items()}
    types = {category: content.for_category(category).types for category in scores}
    return {  # the keys are `CATEGORIES`, which are the document's
        "flagged": any(flags.values()),
        "categories": cast("api.CreateModerationResponseResultCategories", flags),
        "category_scores": cast("api.CreateModerationResponseResultCategoryScores", dict(scores)),
        "category_applied_input_types": cast(
            "api.CreateModerationResponseResultCategoryAppliedInputTypes", types
        ),
    }
