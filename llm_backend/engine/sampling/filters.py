"""Sampling of a token from weights, within the filters: top-p, min-p, typical-p, XTC."""

import numpy as np

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.top_k import Indices, Row, largest_until

REJECTIONS_LIMIT = 8  # rejected samples before the likely tokens are partitioned
_BLOCK = 512  # width of the coarse level of the two-level search in a cumulated distribution
_ONES = np.ones(_BLOCK, dtype=np.float32)
_LARGEST_XTC = 0.5  # above it, at most one token can reach the threshold


def sample_nucleus(weights: Row, sampling: Sampling, rng: np.random.Generator) -> int | None:
    """Rejection sampling: sample indices of all tokens until one passes top-p and min-p.
    `weights` are unnormalised probabilities, 1 for the likeliest: [vocab] float32. None if all
    of `REJECTIONS_LIMIT` samples are rejected."""
    distribution = _Distribution(weights)
    if sampling.top_p >= 1 and sampling.min_p <= 0:
        return distribution.index_at(rng.random())
    for _ in range(REJECTIONS_LIMIT):
        index = distribution.index_at(rng.random())
        weight = weights[index]
        if weight < sampling.min_p:
            continue
        # A product with a mask is many times faster than indexing with it.
        likelier = (weights > weight).view(np.int8).astype(np.float32)
        if float(weights.dot(likelier)) < sampling.top_p * distribution.total:
            return index
    return None


def sample_index(weights: Row, rng: np.random.Generator) -> int:
    """Samples an index of all `weights`: [vocab] float32."""
    return _Distribution(weights).index_at(rng.random())


def exclude_top_choices(weights: Row, threshold: float) -> Row:
    """XTC: of the tokens with at least probability `threshold`, keep only the least likely.
    `weights`: [vocab] float32."""
    strong = np.flatnonzero(weights >= threshold * weights.sum(dtype=np.float64))
    if len(strong) < 2:
        return weights
    weakest = strong[weights[strong].argmin()]
    weights = weights.copy()
    weights[strong[strong != weakest]] = 0
    return weights


def applies_xtc(sampling: Sampling, rng: np.random.Generator) -> bool:
    """Draws whether XTC applies to this token."""
    wants_xtc = sampling.xtc_probability > 0 and sampling.xtc_threshold <= _LARGEST_XTC
    return wants_xtc and rng.random() <= sampling.xtc_probability


def typical_indices(weights: Row, mass: float) -> Indices:
    """Locally typical sampling: indices whose surprise is nearest to the mean surprise, up to
    `mass`. `weights`: [vocab] float32; returns [selected] intp."""
    possible = np.flatnonzero(weights)
    shares = weights[possible] / weights.sum(dtype=np.float64)
    surprise = -np.log(shares)
    nearness = -np.abs(surprise - shares @ surprise)
    nearest = largest_until(nearness, lambda indices: float(shares[indices].sum()) > mass)
    reached = int(np.searchsorted(np.cumsum(shares[nearest]), mass, "right")) + 1
    return possible[nearest[:reached]]


class Candidates:
    """Candidates, the likeliest first: `tokens` [candidates] intp and `weights` [candidates]
    float32. Each filter removes some."""

    def __init__(self, tokens: Indices, weights: Row) -> None:
        self.tokens = tokens
        self.weights = weights
        self._total = float(weights.sum(dtype=np.float64))

    @classmethod
    def of(cls, weights: Row, sampling: Sampling) -> "Candidates":
        """Candidates of a whole vocabulary after typical-p, top-p and min-p."""
        tokens = np.arange(len(weights))
        if sampling.typical_p < 1:
            tokens = typical_indices(weights, sampling.typical_p)
            weights = weights[tokens]
        total, peak = float(weights.sum(dtype=np.float64)), float(weights.max())

        def is_enough(indices: Indices) -> bool:
            found = weights[indices]
            mass = float(found.sum(dtype=np.float64))
            return mass >= sampling.top_p * total or bool(found[-1] < sampling.min_p * peak)

        likely = largest_until(weights, is_enough)
        candidates = cls(tokens[likely], weights[likely])
        candidates._total = total
        candidates.keep_likely(sampling)
        return candidates

    @classmethod
    def of_likeliest(cls, tokens: Indices, weights: Row, sampling: Sampling) -> "Candidates":
        """Candidates of sorted `tokens` after typical-p, top-p and min-p."""
        if sampling.typical_p < 1:
            selected = np.sort(typical_indices(weights, sampling.typical_p))
            tokens, weights = tokens[selected], weights[selected]
        candidates = cls(tokens, weights)
        candidates.keep_likely(sampling)
        return candidates

    def sample(self, sampling: Sampling, rng: np.random.Generator) -> int:
        """Samples a candidate, after XTC."""
        if applies_xtc(sampling, rng):
            self.exclude_top_choices(sampling.xtc_threshold)
        cumulated = np.cumsum(self.weights, dtype=np.float64)
        index = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], "right"))
        return int(self.tokens[min(index, len(self.tokens) - 1)])

    def keep_likely(self, sampling: Sampling) -> None:
        """Applies top-p and min-p."""
        cumulated = np.cumsum(self.weights, dtype=np.float64)
        inside = int(np.searchsorted(cumulated, sampling.top_p * self._total)) + 1
        strong = int(np.count_nonzero(self.weights >= sampling.min_p * self.weights[0]))
        self._keep(slice(0, max(1, min(inside, strong))))

    def exclude_top_choices(self, threshold: float) -> None:
        """Applies XTC, as `exclude_top_choices`."""
        minimum = threshold * self.weights.sum(dtype=np.float64)
        strong = int(np.count_nonzero(self.weights >= minimum))
        self._keep(slice(max(0, strong - 1), None))

    def _keep(self, indices: slice) -> None:
        self.tokens, self.weights = self.tokens[indices], self.weights[indices]


class _Distribution:
    """Cumulated distribution in two levels: sums of blocks, then within one block."""

    def __init__(self, weights: Row) -> None:
        self._weights = weights
        blocks = len(weights) // _BLOCK
        whole = blocks * _BLOCK
        sums = np.empty(blocks + 1, dtype=np.float32)
        # several times faster than sum(axis=1)
        np.matmul(weights[:whole].reshape(-1, _BLOCK), _ONES, out=sums[:blocks])
        sums[blocks] = np.add.reduce(weights[whole:])
        self._cumulated = sums.cumsum(dtype=np.float64)
        self.total = float(self._cumulated[-1])

    def index_at(self, fraction: float) -> int:
        """The index at a fraction in [0, 1) of the total weight."""
        target = fraction * self.total
        found = int(self._cumulated.searchsorted(target, "right"))
        block = min(found, len(self._cumulated) - 1)
        below = float(self._cumulated[block - 1]) if block else 0.0
        start = block * _BLOCK
        within = self._weights[start : start + _BLOCK].cumsum(dtype=np.float64)
        index = int(within.searchsorted(target - below, "right"))
        if index >= len(within):  # rounding: the block's last token with a weight
            index = (
                int(np.flatnonzero(within < within[-1])[-1]) + 1 if within[0] < within[-1] else 0
            )
        return start + index
