"""Decisions, answered by a local model or relayed."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.base import Usage
from llm_backend.backends.local.label_scoring import LabelScoring
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.decisions.input import messages_of
from llm_backend.controllers.decisions.questions import DecisionQuestion, parse_questions
from llm_backend.controllers.generation.request_translation import check_supported_fields
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.offload import offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api
    from llm_backend.controllers.decisions.questions import Answer

FIELDS = {
    "input", "model", "questions",
    "safety_identifier", "prompt_cache_key",  # identify user and cache; have no effect
}  # fmt: skip


async def create_decision(services: Services, request: ApiRequest) -> Response:
    """`POST /decisions`"""
    return await answer_by_route(services, request, local=_decide)


async def _decide(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateDecisionRequest = request.body
    check_supported_fields(body, FIELDS)
    scoring, questions = await offload(_parse, body)
    probabilities, usage = await cancel_on_disconnect(request, model.score_labels(scoring))
    answers: list[Answer] = [
        question.answer(chances) for question, chances in zip(questions, probabilities, strict=True)
    ]
    answer: api.Decision = {"answers": answers, "model": body["model"], "usage": _usage(usage)}
    return JsonResponse(answer)


def _parse(body: "api.CreateDecisionRequest") -> tuple[LabelScoring, list[DecisionQuestion]]:
    questions = parse_questions(body["questions"])
    scoring = LabelScoring(
        messages=messages_of(body["input"]),
        questions=[question.label_question for question in questions],
    )
    return scoring, questions


def _usage(usage: Usage) -> "api.DecisionUsage":
    """Renders the usage: an answer has no tokens."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens,
    }
