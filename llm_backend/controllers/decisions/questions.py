"""Questions of a decision: renders each as a text with labels, and its answer from the labels'
probabilities. Pure.

Labels are JSON, so that a string and a boolean of the same text differ: `true` and `"true"`. The
closing quotes of strings are added only if one label would else begin with another.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from llm_backend.backends.local.label_scoring import LabelQuestion
from llm_backend.backends.local.media import Content
from llm_backend.controllers.decisions.input import content_of
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    Answer = (
        api.DecisionAnswerPredicate
        | api.DecisionAnswerChoice
        | api.DecisionAnswerScore
        | api.DecisionAnswerRefusal
    )

QUESTIONS_LIMIT, LABELS_LIMIT = 400, 255  # OpenAI's
_LEAST_LABELS = 2
_QUOTE = '"'

_PREDICATE = (
    "\n\nIs this statement about the above true?\n",
    "\n\nAnswer with true or false, and nothing else.",
)
_CHOICE = (
    "\n\nChoose an answer about the above.\n",
    "\n\nThe answers, one a line:\n{labels}\n\nAnswer with one of them exactly as it is written, "
    "and nothing else.",
)
_SCORE = (
    "\n\nRate the above.\n",
    "\n\nThe levels, from the lowest to the highest, one a line:\n{labels}\n\nAnswer with one of "
    "them exactly as it is written, and nothing else.",
)


@dataclass(frozen=True, kw_only=True)
class DecisionQuestion:
    """One question, as the client sent it and as the model gets it."""

    sent: JsonMapping
    label_question: LabelQuestion

    def answer(self, probabilities: Sequence[float]) -> "Answer":
        """Returns the answer by the probabilities of the labels."""
        name = self.sent.get("name")
        match self.sent["type"]:
            case "predicate":
                return {"type": "predicate", "name": name, "probability": probabilities[0]}
            case "choice":
                return _choice(self.sent, name, probabilities)
            case _:
                return _score(self.sent, name, probabilities)


def parse_questions(questions: Sequence[JsonMapping]) -> list[DecisionQuestion]:
    """Parses the questions. Raises `InvalidRequest` with the path of an invalid field."""
    if not 1 <= len(questions) <= QUESTIONS_LIMIT:
        raise InvalidRequest(
            f"`questions` has {len(questions)} questions; it must have 1 to {QUESTIONS_LIMIT}.",
            param="questions",
        )
    return [_parse(question, f"questions[{index}]") for index, question in enumerate(questions)]


def _parse(question: JsonMapping, where: str) -> DecisionQuestion:
    instructions = content_of(question["instructions"], f"{where}.instructions")
    if not instructions:
        raise InvalidRequest("A question needs instructions.", param=f"{where}.instructions")
    (before, after), field, values, key = _form(question)
    labels = [json.dumps(value[key], ensure_ascii=False) for value in values]
    if field:
        _check_labels(labels, f"{where}.{field}", key)
        after = after.replace("{labels}", _listing(labels, values))
        labels = _drop_quotes(labels)
    return DecisionQuestion(
        sent=question,
        label_question=LabelQuestion(
            content=_around(before, instructions, after),
            labels=labels,
            param=where,
            labels_param=f"{where}.{field}" if field else where,
        ),
    )


def _form(question: JsonMapping) -> tuple[tuple[str, str], str, Sequence[JsonMapping], str]:
    """Returns the texts around a question's instructions, the field with its answers (empty if
    there is none), the answers, and the key of each answer's value."""
    match question["type"]:
        case "predicate":
            return _PREDICATE, "", [{"value": True}, {"value": False}], "value"
        case "choice":
            return _CHOICE, "choices", question["choices"], "value"
        case _:
            return _SCORE, "levels", question["levels"], "label"


def _check_labels(labels: Sequence[str], where: str, key: str) -> None:
    if not _LEAST_LABELS <= len(labels) <= LABELS_LIMIT:
        raise InvalidRequest(
            f"There are {len(labels)}; there must be {_LEAST_LABELS} to {LABELS_LIMIT}.",
            param=where,
        )
    first: dict[str, int] = {}
    for index, label in enumerate(labels):
        if first.setdefault(label, index) != index:
            raise InvalidRequest(
                f"Number {first[label]} is the same; each must differ.",
                param=f"{where}[{index}].{key}",
            )


def _drop_quotes(labels: list[str]) -> list[str]:
    """Returns the labels without the closing quotes of strings, unless one would then begin with
    another."""
    opened = [label.removesuffix(_QUOTE) for label in labels]
    begins = any(longer.startswith(shorter) for shorter, longer in pairwise(sorted(opened)))
    return labels if begins else opened


def _listing(labels: Sequence[str], values: Sequence[JsonMapping]) -> str:
    lines = []
    for label, value in zip(labels, values, strict=True):
        description = value.get("description")
        lines.append(f"{label}: {description}" if description else label)
    return "\n".join(lines)


def _around(before: str, content: Content, after: str) -> Content:
    if isinstance(content, str):
        return f"{before}{content}{after}"
    return [before, *(content or ()), after]


def _choice(
    question: JsonMapping, name: str | None, probabilities: Sequence[float]
) -> "api.DecisionAnswerChoice":
    values = [choice["value"] for choice in question["choices"]]
    best = max(range(len(values)), key=lambda index: probabilities[index])
    return {
        "type": "choice",
        "name": name,
        "choice": values[best],
        "confidence": confidence(probabilities),
        "probabilities": [
            {"value": value, "probability": probability}
            for value, probability in zip(values, probabilities, strict=True)
        ],
    }


def _score(
    question: JsonMapping, name: str | None, probabilities: Sequence[float]
) -> "api.DecisionAnswerScore":
    levels = zip(question["levels"], probabilities, strict=True)
    return {
        "type": "score",
        "name": name,
        "score": math.fsum(index * chance for index, chance in enumerate(probabilities)),
        "confidence": confidence(probabilities),
        "probabilities": [
            {"value": index, "label": level["label"], "probability": probability}
            for index, (level, probability) in enumerate(levels)
        ],
    }


def confidence(probabilities: Sequence[float]) -> float:
    """Returns the concentration of a distribution, 0 if all are equal and 1 if one is certain: 1
    minus the entropy divided by the largest possible entropy."""
    entropy = -math.fsum(one * math.log(one) for one in probabilities if one > 0)
    return min(1.0, max(0.0, 1 - entropy / math.log(len(probabilities))))
