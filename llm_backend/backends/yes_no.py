"""A question about a text, put to a local model, and how sure the model is of its yes.

The answer is one token long and held by a grammar to the beginning of a yes or a no. So the
probabilities of what the grammar allows say all: those that begin a yes, against the others.
"""

import math
from collections.abc import Iterable

from llm_backend.backends.base import Chat, Grammar, Limits, Priority, Sampling, TokenLogprob
from llm_backend.backends.local import LocalModel

__all__ = ["ANSWER", "likelihood_of_yes", "probability_of_yes"]

ANSWER = "start: /Yes|yes|YES|No|no|NO/"

# Tokens that begin one of the six: each case of Y, Ye, Yes, N, No is 13 at most.
_ALLOWED = 20
_SAMPLING = Sampling(temperature=0, logprobs=_ALLOWED, constrained_logprobs=True)


async def probability_of_yes(model: LocalModel, question: str, priority: Priority) -> float:
    """How likely it is, from 0 to 1, that the model answers with yes and not with no.

    Raises what `LocalModel.chat` raises; an `InvalidRequest` with the param `reasoning_effort` for
    a model that cannot answer without thinking first.
    """
    chat = Chat(
        messages=[{"role": "user", "content": question}],
        grammar=Grammar(text=ANSWER, field="model"),
        reasoning_effort="none",
        limits=Limits(max_tokens=1),
        sampling=_SAMPLING,
        priority=priority,
    )
    async with await model.chat(chat) as answer:
        tokens = [token async for delta in answer.text() for token in delta.logprobs]
    return likelihood_of_yes(tokens[0].top)


def likelihood_of_yes(allowed: Iterable[TokenLogprob]) -> float:
    """The share of tokens that begin a yes in the probability of all that were `allowed`."""
    yes = no = 0.0
    for token in allowed:
        probability = math.exp(token.logprob) if token.logprob is not None else 0.0
        if token.bytes[:1] in b"Yy":
            yes += probability
        else:
            no += probability
    return yes / (yes + no)
