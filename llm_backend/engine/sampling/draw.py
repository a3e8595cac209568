"""From weights to one place: by chance, within what the filters leave."""

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.likeliest import Places, Row, likeliest

__all__ = ["Filtered", "draw_nucleus"]

_DRAWS = 8  # rejected draws before the likely tokens are partitioned off
_BLOCK = 512  # width of the coarse level of the two-level search in a cumulated distribution
_ONES = np.ones(_BLOCK, dtype=np.float32)
_LARGEST_XTC = 0.5  # above it no two tokens can be strong


def draw_nucleus(weights: Row, sampling: Sampling, rng: np.random.Generator) -> int | None:
    """A place drawn from all until it lies in what top-p and min-p leave, given unnormalised
    probabilities, 1 for the likeliest; None if that takes too long."""
    drawn = _Distribution(weights)
    if sampling.top_p >= 1 and sampling.min_p <= 0:
        return drawn.at(rng.random())
    for _ in range(_DRAWS):
        place = drawn.at(rng.random())
        weight = weights[place]
        if weight < sampling.min_p:
            continue
        # A product with a mask is many times faster than picking what the mask names.
        if float(weights @ (weights > weight)) < sampling.top_p * drawn.total:
            return place
    return None


class Filtered:
    """Candidates from the likeliest down, of which each filter leaves some."""

    def __init__(self, tokens: Places, weights: Row) -> None:
        self.tokens = tokens
        self.weights = weights

    @classmethod
    def by_likelihood(cls, tokens: Places, weights: Row) -> "Filtered":
        """All of `tokens`, which are in any order."""
        order = likeliest(weights, len(weights))
        return cls(tokens[order], weights[order])

    def filter(self, sampling: Sampling, rng: np.random.Generator) -> None:
        """Typical-p, then top-p and min-p, then XTC."""
        if sampling.typical_p < 1:
            self._keep_typical(sampling.typical_p)
        self._keep_likely(sampling.top_p, sampling.min_p)
        wants_xtc = sampling.xtc_probability > 0 and sampling.xtc_threshold <= _LARGEST_XTC
        if wants_xtc and rng.random() <= sampling.xtc_probability:
            self._drop_strong(sampling.xtc_threshold)

    def draw(self, fraction: float) -> int:
        """The token at a `fraction` in [0, 1) of what is left."""
        cumulated = np.cumsum(self.weights, dtype=np.float64)
        place = int(np.searchsorted(cumulated, fraction * cumulated[-1], "right"))
        return int(self.tokens[min(place, len(self.tokens) - 1)])

    def _keep_typical(self, mass: float) -> None:
        """Those whose surprise is nearest to the mean surprise, until they reach `mass`."""
        possible = int(np.count_nonzero(self.weights))
        shares = self.weights[:possible] / self.weights.sum(dtype=np.float64)
        surprise = -np.log(shares)
        order = np.argsort(np.abs(surprise - shares @ surprise), kind="stable")
        reached = int(np.searchsorted(np.cumsum(shares[order]), mass, "right")) + 1
        self._keep(np.sort(order[:reached]))

    def _keep_likely(self, top_p: float, min_p: float) -> None:
        cumulated = np.cumsum(self.weights, dtype=np.float64)
        inside = int(np.searchsorted(cumulated, top_p * cumulated[-1])) + 1
        strong = int(np.count_nonzero(self.weights >= min_p * self.weights[0]))
        self._keep(slice(0, max(1, min(inside, strong))))

    def _drop_strong(self, threshold: float) -> None:
        """Of several that are at least so likely only the least likely is left."""
        least = threshold * self.weights.sum(dtype=np.float64)
        strong = int(np.count_nonzero(self.weights >= least))
        self._keep(slice(max(0, strong - 1), None))

    def _keep(self, places: NDArray[np.intp] | slice) -> None:
        self.tokens, self.weights = self.tokens[places], self.weights[places]


class _Distribution:
    """Weights to draw from: sums of blocks first, then within one block."""

    def __init__(self, weights: Row) -> None:
        self._weights = weights
        whole = len(weights) // _BLOCK * _BLOCK
        sums = weights[:whole].reshape(-1, _BLOCK) @ _ONES  # several times faster than sum(axis=1)
        self._cumulated = np.cumsum(np.append(sums, weights[whole:].sum()), dtype=np.float64)
        self.total = float(self._cumulated[-1])

    def at(self, fraction: float) -> int:
        """The place at a fraction in [0, 1) of the whole weight."""
        target = fraction * self.total
        block = min(
            int(np.searchsorted(self._cumulated, target, "right")), len(self._cumulated) - 1
        )
        below = float(self._cumulated[block - 1]) if block else 0.0
        start = block * _BLOCK
        within = np.cumsum(self._weights[start : start + _BLOCK], dtype=np.float64)
        place = int(np.searchsorted(within, target - below, "right"))
        if place >= len(within):  # rounding: the last token of the block that weighs anything
            place = (
                int(np.flatnonzero(within < within[-1])[-1]) + 1 if within[0] < within[-1] else 0
            )
        return start + place
