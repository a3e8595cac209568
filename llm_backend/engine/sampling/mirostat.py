"""Mirostat: keeps the surprise of the text near a target instead of a fixed cutoff.

`tau` is the target in bits a token, `eta` the learning rate of the allowed surprise `mu`, which
begins at twice the target. Version 1 estimates from the steepness of the likeliest tokens how many
of them keep the target; version 2 keeps those whose own surprise is at most `mu`.
"""

import numpy as np

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.top_k import Indices, Row, top_k

_STEEPNESS_OF = 100  # tokens from which version 1 estimates the steepness of all, as in llama.cpp
_NEARLY_NONE = 1e-9


class Mirostat:
    """Mirostat state of one sequence."""

    def __init__(self, sampling: Sampling) -> None:
        self._version = sampling.mirostat
        self._tau, self._eta = sampling.mirostat_tau, sampling.mirostat_eta
        self._mu = 2 * self._tau

    def sample(self, weights: Row, fraction: float) -> int:
        """The token at a `fraction` in [0, 1) of the selected weights. `weights`: [vocab]
        float32."""
        selected = (
            self._select_by_steepness(weights)
            if self._version == 1
            else self._select_by_surprise(weights)
        )
        cumulated = np.cumsum(weights[selected], dtype=np.float64)
        index = int(np.searchsorted(cumulated, fraction * cumulated[-1], "right"))
        token = int(selected[min(index, len(selected) - 1)])
        surprise = float(np.log2(cumulated[-1] / weights[token]))
        self._mu -= self._eta * (surprise - self._tau)
        return token

    def _select_by_surprise(self, weights: Row) -> Indices:
        minimum = weights.sum(dtype=np.float64) * np.exp2(-self._mu)
        selected: Indices = np.flatnonzero((weights >= minimum) & (weights > 0))
        return selected if selected.size else np.array([weights.argmax()])

    def _select_by_steepness(self, weights: Row) -> Indices:
        best = top_k(weights, min(_STEEPNESS_OF, len(weights)))
        best = best[weights[best] > 0]
        selected = top_k(weights, self._count(weights[best], len(weights)))
        return selected[weights[selected] > 0]

    def _count(self, best: Row, size: int) -> int:
        """Number of the `size` tokens that keeps the target, estimated from the likeliest
        weights."""
        if len(best) < 2:
            return 1
        ranks = np.arange(1, len(best))
        falls = np.log(best[:-1].astype(np.float64) / best[1:])
        steps = np.log((ranks + 1) / ranks)
        exponent = float(falls @ steps) / float(steps @ steps)
        if exponent < _NEARLY_NONE:  # all are equal: there is no steepness to cut by
            return size
        excess = exponent - 1
        per_bit = 1 / np.log(size) if abs(excess) < _NEARLY_NONE else excess / (1 - size**-excess)
        exponent_of_count = (
            np.log2(per_bit) + self._mu
        ) / exponent  # a logarithm: the number itself is huge
        return max(1, int(min(size, np.exp2(min(exponent_of_count, 64.0)))))
