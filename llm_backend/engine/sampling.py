"""Logits to the next token: numpy, one row at a time, without ever sorting the vocabulary.

Top-p and min-p are sampled by rejection: a token drawn from the whole distribution is kept if it
lies in the nucleus, which takes one comparison and one sum over the vocabulary and no order. A draw
is kept with at least the nucleus' own probability, so few are needed; where they do not succeed, or
top-k asks for it, the likely tokens are partitioned off and only those are sorted.
"""

from collections import Counter, deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.messages import Sampling

__all__ = ["Alternative", "Choice", "NoChoice", "Sampler", "log_probabilities"]

Row = NDArray[np.float32]

_REPEAT_WINDOW = 64  # tokens that repeat_penalty looks back at, as in llama.cpp
_GREEDY_BELOW = 1e-4  # a temperature that only the likeliest token survives
_DRAWS = 8  # rejected draws before the likely tokens are partitioned off
_BLOCK = 512  # width of the coarse level of the two-level search in a cumulated distribution
_ONES = np.ones(_BLOCK, dtype=np.float32)
_FORBIDDEN = np.float32(-np.inf)
_GROUP = 64  # size of the groups whose peaks say where the largest values are


class NoChoice(Exception):
    """The logits leave nothing to choose: not numbers, or every token forbidden."""


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
    """What the model thinks of `token`, and its `top` most likely tokens, best first."""
    peak = float(row.max())
    total = peak + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))
    best = _likeliest(row, top) if top else np.empty(0, dtype=np.intp)
    return Choice(
        token=token,
        logprob=float(row[token]) - total,
        top=[Alternative(token=int(id_), logprob=float(row[id_]) - total) for id_ in best],
    )


class Sampler:
    """Chooses the tokens of one sequence; remembers what penalties and its seed need.

    `suppressed` can never be chosen. The same seed, index and logits give the same tokens.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        index: int,
        prompt: Tokens[int],
        suppressed: Tokens[int] = (),
        wants_logprobs: bool = False,
    ) -> None:
        self._sampling = sampling
        seed = None if sampling.seed is None else [sampling.seed & (2**64 - 1), index]
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._generated: Counter[int] = Counter()
        self._recent = deque(prompt[-_REPEAT_WINDOW:], maxlen=_REPEAT_WINDOW)
        self._bias_tokens = np.array([*sampling.logit_bias, *suppressed], dtype=np.intp)
        self._bias = np.array(
            [*sampling.logit_bias.values(), *(-np.inf for _ in suppressed)], dtype=np.float32
        )
        self._wants_logprobs = wants_logprobs or sampling.logprobs is not None

    def choose(self, row: Row, allowed: NDArray[np.bool_] | None = None) -> Choice:
        """The next token, given its logits, of those `allowed`. `row` is left as it is."""
        changed = self._adjusted(row) if self._changes_logits else row
        if allowed is not None:
            changed = np.where(allowed, changed, _FORBIDDEN)
        greedy = self._sampling.temperature < _GREEDY_BELOW
        token = int(changed.argmax()) if greedy else self._draw(changed)
        if not np.isfinite(changed[token]):
            raise NoChoice(f"no token can be chosen: the best has the logit {changed[token]}")
        self.accept(token)
        if not self._wants_logprobs:
            return Choice(token=token)
        return log_probabilities(row, token, self._sampling.logprobs or 0)

    def accept(self, token: int) -> None:
        """`token` was chosen for this sequence."""
        self._generated[token] += 1
        self._recent.append(token)

    @property
    def _has_penalties(self) -> bool:
        sampling = self._sampling
        return (
            sampling.frequency_penalty != 0
            or sampling.presence_penalty != 0
            or sampling.repeat_penalty != 1
        )

    @property
    def _changes_logits(self) -> bool:
        return self._bias_tokens.size > 0 or self._has_penalties

    def _adjusted(self, row: Row) -> Row:
        row = row.copy()
        sampling = self._sampling
        if sampling.repeat_penalty != 1 and self._recent:
            recent = np.fromiter(set(self._recent), dtype=np.intp)
            logits = row[recent]
            factor = np.float32(sampling.repeat_penalty)
            row[recent] = np.where(logits > 0, logits / factor, logits * factor)
        if self._generated and (sampling.frequency_penalty or sampling.presence_penalty):
            tokens = np.fromiter(self._generated, dtype=np.intp)
            counts = np.fromiter(self._generated.values(), dtype=np.float32)
            row[tokens] -= sampling.frequency_penalty * counts + sampling.presence_penalty
        np.add.at(row, self._bias_tokens, self._bias)
        return row

    def _draw(self, row: Row) -> int:
        """One token by temperature, then top-k, top-p and min-p."""
        sampling = self._sampling
        peak = row.max()
        if not np.isfinite(peak):
            return int(row.argmax())
        if 0 < sampling.top_k < len(row):
            likely = _likeliest(row, sampling.top_k)
            return int(likely[self._draw_sorted(self._weights(row[likely], peak))])
        weights = self._weights(row, peak)
        token = self._draw_nucleus(weights)
        if token is not None:
            return token
        order = _likeliest(weights, len(weights))
        return int(order[self._draw_sorted(weights[order])])

    def _weights(self, logits: Row, peak: np.float32) -> Row:
        """Unnormalised probabilities, 1 for the likeliest token."""
        weights: Row = logits - peak
        weights *= np.float32(1 / self._sampling.temperature)
        np.exp(weights, out=weights)
        return weights

    def _draw_nucleus(self, weights: Row) -> int | None:
        """A token drawn from all until it lies in the nucleus; None if that takes too long."""
        sampling, drawn = self._sampling, _Distribution(weights)
        if sampling.top_p >= 1 and sampling.min_p <= 0:
            return drawn.at(self._rng.random())
        for _ in range(_DRAWS):
            token = drawn.at(self._rng.random())
            weight = weights[token]
            if weight < sampling.min_p:
                continue
            # A product with a mask is many times faster than picking what the mask names.
            if float(weights @ (weights > weight)) < sampling.top_p * drawn.total:
                return token
        return None

    def _draw_sorted(self, weights: Row) -> int:
        """The place of one candidate, given the weights of all from the likeliest down."""
        sampling = self._sampling
        cumulated = np.cumsum(weights, dtype=np.float64)
        inside = int(np.searchsorted(cumulated, sampling.top_p * cumulated[-1])) + 1
        strong = int(np.count_nonzero(weights >= sampling.min_p))
        kept = max(1, min(inside, strong, len(weights)))
        place = np.searchsorted(cumulated[:kept], self._rng.random() * cumulated[kept - 1], "right")
        return min(int(place), kept - 1)


class _Distribution:
    """Weights to draw from: sums of blocks first, then within one block."""

    def __init__(self, weights: Row) -> None:
        self._weights = weights
        whole = len(weights) // _BLOCK * _BLOCK
        sums = weights[:whole].reshape(-1, _BLOCK) @ _ONES  # several times faster than sum(axis=1)
        self._cumulated = np.cumsum(np.append(sums, weights[whole:].sum()), dtype=np.float64)
        self.total = float(self._cumulated[-1])

    def at(self, fraction: float) -> int:
        """The token at a fraction in [0, 1) of the whole weight."""
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


def _likeliest(values: Row, count: int) -> NDArray[np.intp]:
    """The places of the `count` largest values, largest first.

    They lie in the `count` groups with the largest peaks, so only those groups are looked into. A
    group is a column: its members are a stride apart, as peaks are found fastest along rows.
    """
    if count * _GROUP * 4 > len(values):
        return _partitioned(values, np.arange(len(values)), count)
    groups = len(values) // _GROUP
    peaks = values[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    best = np.argpartition(peaks, groups - count)[groups - count :]
    members = (np.sort(best) + groups * np.arange(_GROUP)[:, None]).ravel()
    places = np.concatenate((members, np.arange(groups * _GROUP, len(values))))
    return _partitioned(values, places, count)


def _partitioned(values: Row, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The `count` of `places` with the largest values, largest first."""
    found = values[places]
    if count < len(places):
        likely = np.argpartition(found, len(places) - count)[len(places) - count :]
        places, found = places[likely], found[likely]
    order: NDArray[np.intp] = places[np.argsort(-found, kind="stable")]
    return order
