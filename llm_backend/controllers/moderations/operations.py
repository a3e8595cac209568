"""Moderations: classifies inputs by asking a local model a yes/no question per category."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from llm_backend.backends.base import Priority
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import Picture
from llm_backend.backends.local.yes_no import YesNoQuestion, probability_of_yes
from llm_backend.contract.client_disconnect import unless_gone
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.generation_request import refuse_others
from llm_backend.controllers.moderations.categories import (
    KINDS,
    SEEN_KINDS,
    CategoryJudgement,
    way_to_ask,
)
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    Unsupported,
    UnsupportedField,
)
from llm_backend.offload import is_large, offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

__all__ = ["create_moderation", "judge", "moderation"]


FIELDS = {"input", "model"}
OPERATION = ("createModeration", "Moderations")
OPENAIS_MODELS = (
    "omni-moderation-latest",  # OpenAI's default
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
)
FLAGGED_FROM = 0.5  # probability of yes
ASKED_AT_ONCE = 16  # questions of one request: enough to fill a batch without filling the queue

_SEEN_KIND = min(SEEN_KINDS)


async def create_moderation(services: Services, request: ApiRequest) -> Response:
    """`POST /moderations`"""
    body = {**request.body, "model": judge(services, request.body)}
    return await answer_by_route(services, replace(request, body=body), here=_judge_inputs)


async def _judge_inputs(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    limit = services.settings.prompts_limit
    return JsonResponse(
        await unless_gone(request, moderation(model, request.body, inputs_limit=limit))
    )


def judge(services: Services, body: "api.CreateModerationRequest") -> str:
    """Returns the name of the model that judges. OpenAI's model names mean the setting
    `moderation_model`, unless a served model has that name, or only an upstream can judge an image.

    Raises `Unsupported` if there is neither such a model nor an upstream.
    """
    name = str(body.get("model") or OPENAIS_MODELS[0])
    if name not in OPENAIS_MODELS or services.registry.knows(name):
        return name
    if services.settings.moderation_model is not None and not _is_upstreams(services, name, body):
        return services.settings.moderation_model
    if services.upstream is None:
        raise Unsupported(
            "No model is configured for moderation: set `moderation_model` "
            "(LLM_BACKEND_MODERATION_MODEL) to the name of a chat model that is served here, or "
            "OPENAI_API_KEY to have it relayed.",
            param="model",
        )
    return name


def _is_upstreams(services: Services, name: str, body: "api.CreateModerationRequest") -> bool:
    """True if the input has an image, the local judge has no vision and the upstream serves the
    model."""
    upstream = services.upstream
    if upstream is None or not any(_is_image(part) for part in body["input"]):
        return False
    configured = services.settings.moderation_model
    own = None if configured is None else services.registry.for_model(configured)
    if own is not None and own.sees:
        return False
    return upstream.serves(name, OPERATION)


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part["type"] == "image_url"


async def moderation(
    model: LocalModel,
    body: "api.CreateModerationRequest",
    *,
    inputs_limit: int,
    priority: Priority = Priority.INTERACTIVE,
) -> "api.CreateModerationResponse":
    """Judges a moderation request with this model; returns the response object."""
    refuse_others({"model": model.card.id, **body}, FIELDS)
    model = model.as_personality(None)  # the question holds the whole instruction
    inputs = _inputs(body["input"], inputs_limit)
    _check_senses(model, inputs.values())
    ask, turns = way_to_ask(await model.template()), asyncio.Semaphore(ASKED_AT_ONCE)

    async def score(field: str, judged: CategoryJudgement, kind: str) -> float:
        if not judged.types:
            return 0.0
        async with turns:
            return await _score(model, await offload(ask, judged, kind), field, priority)

    if is_large():  # one question first, so that a too long input fails only once
        for field, one in inputs.items():
            await score(field, one, _SEEN_KIND)
    try:
        async with asyncio.TaskGroup() as asking:
            scores = [
                {kind: asking.create_task(score(field, one.as_kind(kind), kind)) for kind in KINDS}
                for field, one in inputs.items()
            ]
    except ExceptionGroup as failed:  # the first failure cancelled the other tasks
        raise failed.exceptions[0] from None
    return {
        "id": f"modr-{uuid.uuid4().hex}",
        "model": model.card.id,
        "results": [
            _result({kind: one.result() for kind, one in each.items()}, judged)
            for each, judged in zip(scores, inputs.values(), strict=True)
        ],
    }


def _inputs(given: Any, limit: int) -> dict[str, CategoryJudgement]:
    """Parses the inputs, by their field names: one text, each text of a list, or a list of parts as
    one input."""
    if isinstance(given, str):
        return {"input": CategoryJudgement(text=given)}
    if not 1 <= len(given) <= limit:
        raise InvalidRequest(
            f"`input` holds {len(given)} inputs; it must hold 1 to {limit}.", param="input"
        )
    if isinstance(given[0], str):
        return {f"input[{place}]": CategoryJudgement(text=text) for place, text in enumerate(given)}
    pictures = [
        Picture(url=part["image_url"]["url"], where=f"input[{place}].image_url")
        for place, part in enumerate(given)
        if _is_image(part)
    ]
    texts = [part["text"] for part in given if not _is_image(part)]
    return {"input": CategoryJudgement(text="\n".join(texts) if texts else None, pictures=pictures)}


def _check_senses(model: LocalModel, inputs: Iterable[CategoryJudgement]) -> None:
    for judged in inputs:
        if judged.pictures and not model.sees:
            raise UnsupportedField(
                f"`{model.card.id}`, which judges here, sees no images; send text only.",
                param=judged.pictures[0].where,
            )


async def _score(model: LocalModel, asked: YesNoQuestion, field: str, priority: Priority) -> float:
    try:
        return await probability_of_yes(model, asked, priority)
    except ContextLengthExceeded as error:
        raise ContextLengthExceeded(error.message, param=field) from error
    except InvalidRequest as error:
        if error.param != "reasoning_effort":
            raise
        raise InvalidRequest(
            f"`{model.card.id}` always thinks before it answers, and so cannot be asked for a yes "
            "or no: have another model judge.",
            param="model",
        ) from error


def _result(
    scores: Mapping[str, float], judged: CategoryJudgement
) -> "api.CreateModerationResponseResult":
    flags = {kind: score >= FLAGGED_FROM for kind, score in scores.items()}
    types = {kind: judged.as_kind(kind).types for kind in scores}
    return {  # the keys of the three are `KINDS`, which are the document's
        "flagged": any(flags.values()),
        "categories": cast("api.CreateModerationResponseResultCategories", flags),
        "category_scores": cast("api.CreateModerationResponseResultCategoryScores", dict(scores)),
        "category_applied_input_types": cast(
            "api.CreateModerationResponseResultCategoryAppliedInputTypes", types
        ),
    }
