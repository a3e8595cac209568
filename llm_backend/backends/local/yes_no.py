"""A question about what is said, put to a local model, and how sure the model is of its yes.

The answer is one token long and held by a grammar to the beginning of a yes or a no. So the
probabilities of what the grammar allows say all: those that begin a yes, against the others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_backend.backends.base import (
    Chat,
    GenerationLimits,
    Grammar,
    Priority,
    Sampling,
    TokenLogprob,
)
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import Content

__all__ = ["YES_OR_NO", "YesNoQuestion", "YesNoWords", "likelihood_of_yes", "probability_of_yes"]


@dataclass(frozen=True, kw_only=True)
class YesNoWords:
    """What a yes and a no may be called; no yes begins like a no. Together their beginnings are
    fewer than the tokens whose probability is told."""

    yes: tuple[str, ...]
    no: tuple[str, ...]

    @property
    def grammar(self) -> str:
        """What holds an answer to them."""
        return f"start: /{'|'.join(self.yes + self.no)}/"


YES_OR_NO = YesNoWords(yes=("Yes", "yes", "YES"), no=("No", "no", "NO"))


@dataclass(frozen=True, kw_only=True)
class YesNoQuestion:
    """What the user says, what the model's template is told beside, and what the answers are."""

    said: Content
    switches: Mapping[str, Any] = field(default_factory=dict)
    words: YesNoWords = YES_OR_NO


_ALLOWED = 20  # each of Y, Ye, Yes, N, No in three cases is 13 at most; `unsafe` and `safe` are 10
_SAMPLING = Sampling(temperature=0, logprobs=_ALLOWED, constrained_logprobs=True)


async def probability_of_yes(
    model: LocalModel, question: YesNoQuestion, priority: Priority
) -> float:
    """How likely it is, from 0 to 1, that the model answers with yes and not with no.

    Raises what `LocalModel.chat` raises; an `InvalidRequest` with the param `reasoning_effort` for
    a model that cannot answer without thinking first.
    """
    chat = Chat(
        messages=[{"role": "user", "content": question.said}],
        has_personality=False,
        grammar=Grammar(text=question.words.grammar, field="model"),
        reasoning_effort="none",
        template_switches=question.switches,
        limits=GenerationLimits(max_tokens=1),
        sampling=_SAMPLING,
        priority=priority,
    )
    async with await model.chat(chat) as answer:
        tokens = [token async for delta in answer.text() for token in delta.logprobs]
    return likelihood_of_yes(tokens[0].top, question.words)


def likelihood_of_yes(allowed: Iterable[TokenLogprob], words: YesNoWords = YES_OR_NO) -> float:
    """The share of tokens that begin a yes in the probability of all that were `allowed`."""
    beginnings = tuple({word[0].encode() for word in words.yes})
    yes = no = 0.0
    for token in allowed:
        probability = math.exp(token.logprob) if token.logprob is not None else 0.0
        if token.bytes.startswith(beginnings):
            yes += probability
        else:
            no += probability
    return yes / (yes + no)
