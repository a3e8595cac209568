"""Result of a sampling step: the chosen token and its logprobs."""

from dataclasses import dataclass, field

import numpy as np

from llm_backend.engine.sampling.top_k import Row, top_k


class NoChoice(Exception):
    """No token can be chosen from the logits: one is NaN, or every token is forbidden."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A token and its natural-log probability under the model's own distribution."""

    token: int
    logprob: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen token; `logprob` and the most likely alternatives if they were asked for."""

    token: int
    logprob: float | None = None
    top: list[Alternative] = field(default_factory=list)


def log_probabilities(row: Row, token: int, top: int) -> Choice:
    """Logprob of `token`, and of the `top` most likely tokens, best first, without impossible
    ones. `row`: [vocab] float32."""
    total = log_sum_exp(row)
    best = top_k(row, top) if top else np.empty(0, dtype=np.intp)
    return Choice(
        token=token,
        logprob=float(row[token]) - total,
        top=[
            Alternative(token=int(id_), logprob=float(row[id_]) - total)
            for id_ in best
            if row[id_] > -np.inf
        ],
    )


def log_sum_exp(row: Row) -> float:
    """Log of the sum of the exponentials of logits: a logit less it is a logprob. Not finite if
    every token is forbidden, or a logit is NaN. `row`: [vocab] float32."""
    peak = float(row.max())
    return peak + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))
