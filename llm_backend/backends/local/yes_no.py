"""Yes/no classifier: the probability that a local model answers yes to a question about a text.

The answer is one token, constrained by a grammar to a prefix of a word for yes or no. The result is
the probability of the tokens that begin a yes, divided by that of all allowed tokens.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from llm_backend.backends.base import Chat, GenerationLimits, Grammar
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import Content
from llm_backend.engine.messages import Priority, Sampling, TokenLogprob
from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class YesNoWords:
    """Words for yes and no; no word for yes shares a prefix with a word for no. Together they have
    fewer prefixes than the number of logprobs returned."""

    yes: tuple[str, ...]
    no: tuple[str, ...]

    @property
    def grammar(self) -> str:
        """Grammar of an answer with one of the words."""
        return f"start: /{'|'.join(self.yes + self.no)}/"


YES_OR_NO = YesNoWords(yes=("Yes", "yes", "YES"), no=("No", "no", "NO"))


@dataclass(frozen=True, kw_only=True)
class YesNoQuestion:
    """Question: the user's text, variables of the chat template, and the words of the answers."""

    content: Content
    template_kwargs: JsonMapping = field(default_factory=dict)
    words: YesNoWords = YES_OR_NO


_LOGPROBS = 20  # prefixes: the words of `YES_OR_NO` have 13, `unsafe` and `safe` together 10
_SAMPLING = Sampling(temperature=0, logprobs=_LOGPROBS, constrained_logprobs=True)


async def probability_of_yes(
    model: LocalModel, question: YesNoQuestion, priority: Priority
) -> float:
    """Returns the probability, from 0 to 1, that the model answers yes.

    Raises as `LocalModel.chat`, and `InvalidRequest` with the param `reasoning_effort` for a model
    that cannot answer without reasoning.
    """
    chat = Chat(
        messages=[{"role": "user", "content": question.content}],
        has_personality=False,
        grammar=Grammar(text=question.words.grammar, field="model"),
        reasoning_effort="none",
        template_kwargs=question.template_kwargs,
        limits=GenerationLimits(max_tokens=1),
        sampling=_SAMPLING,
        priority=priority,
    )
    async with await model.chat(chat) as answer:
        tokens = [token async for delta in answer.text_deltas() for token in delta.logprobs]
    return likelihood_of_yes(tokens[0].top, question.words)


def likelihood_of_yes(allowed: Iterable[TokenLogprob], words: YesNoWords = YES_OR_NO) -> float:
    """Returns the probability of the tokens that begin a yes, divided by that of all `allowed`
    ones."""
    beginnings = tuple({word[0].encode() for word in words.yes})
    yes = no = 0.0
    for token in allowed:
        probability = math.exp(token.logprob) if token.logprob is not None else 0.0
        if token.bytes.startswith(beginnings):
            yes += probability
        else:
            no += probability
    return yes / (yes + no)
