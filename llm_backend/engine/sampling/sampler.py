"""Sampler: chooses the next token from a row of logits, and sorts the vocabulary only if it must.

The steps in their order, each skipped if the request's parameters make it change nothing:

1. the logits processors: repeat penalty (`repetition_penalty` elsewhere), frequency and presence
   penalty, DRY, logit bias, forbidden tokens (the end tokens, EOS, with `ignore_eos`); the grammar;
2. temperature; one near zero takes the likeliest token, and the following steps are skipped;
3. Mirostat, which replaces the following filters; or
4. top-k, typical-p, top-p and min-p, XTC: each removes tokens from those that the previous one
   left;
5. the random choice.

Top-p and min-p alone are sampled by rejection: a token sampled from the whole distribution is
accepted if it lies in the nucleus. This check takes one comparison and one sum over the vocabulary,
without sorting. A sample is accepted with at least the probability of the nucleus, so few samples
are needed. Candidates are sorted if no sample is accepted, or if another filter needs their order.
"""

import math
from collections import abc

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.choice import Choice, NoChoice, log_probabilities
from llm_backend.engine.sampling.dry import DryPenalty
from llm_backend.engine.sampling.filters import (
    Candidates,
    applies_xtc,
    exclude_top_choices,
    sample_index,
    sample_nucleus,
)
from llm_backend.engine.sampling.mirostat import Mirostat
from llm_backend.engine.sampling.native_nucleus import NativeNucleus, NotFinite
from llm_backend.engine.sampling.penalties import (
    CountPenalty,
    LogitBias,
    LogitsProcessor,
    RepeatPenalty,
)
from llm_backend.engine.sampling.top_k import Row, top_k

_FORBIDDEN = np.float32(-np.inf)
_GREEDY_BELOW = 1e-4  # below this temperature only the likeliest token has any probability


class Sampler:
    """Chooses the tokens of one sequence; holds the state of its penalties and its seed.

    `suppressed` tokens are never chosen, `delayed` ones not among the first `min_tokens` tokens.
    `token_bytes` returns the bytes of a token as text, or the name of a control token. The same
    seed, index and logits give the same tokens, even if the grammar forced some of them.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        index: int,
        prompt: abc.Sequence[int],
        token_bytes: abc.Callable[[int], bytes],
        suppressed: abc.Sequence[int] = (),
        delayed: abc.Sequence[int] = (),
        min_tokens: int = 0,
        wants_logprobs: bool = False,
    ) -> None:
        self._sampling = sampling
        seed = None if sampling.seed is None else [sampling.seed & (2**64 - 1), index]
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._logits_processors = _logits_processors(sampling, prompt, token_bytes, suppressed)
        self._delayed_tokens = LogitBias({}, delayed) if delayed else None
        self._delay_remaining = min_tokens
        self._is_greedy = sampling.temperature < _GREEDY_BELOW
        self._mirostat = Mirostat(sampling) if sampling.mirostat else None
        self._is_xtc_alone = (
            sampling.xtc_probability > 0
            and sampling.typical_p >= 1
            and sampling.top_p >= 1
            and sampling.min_p <= 0
        )
        self._needs_candidates = sampling.typical_p < 1 or sampling.xtc_probability > 0
        is_plain = not (self._is_greedy or self._mirostat or self._needs_candidates)
        samples_natively = is_plain and sampling.top_k <= 0 and NativeNucleus.is_available()
        self._native_nucleus = NativeNucleus(sampling, self._rng) if samples_natively else None
        self._wants_logprobs = wants_logprobs or sampling.logprobs is not None

    def choose(self, row: Row, allowed: NDArray[np.bool_] | None = None) -> Choice:
        """Runs a sampling step. `row`: [vocab] float32 logits, which are not changed; `allowed`:
        [vocab] bool."""
        adjusted = self._process_logits(row)
        if allowed is not None and not (self._is_greedy and allowed[adjusted.argmax()]):
            adjusted = np.where(allowed, adjusted, _FORBIDDEN)
        is_determined = self._is_greedy or (allowed is not None and np.count_nonzero(allowed) == 1)
        token = int(adjusted.argmax()) if is_determined else self._sample(adjusted)
        if not math.isfinite(adjusted[token]):
            raise NoChoice(f"no token can be chosen: the best has the logit {adjusted[token]}")
        self.accept(token)
        if not self._wants_logprobs:
            return Choice(token=token)
        if allowed is not None and self._sampling.constrained_logprobs:
            row = np.where(allowed, row, _FORBIDDEN)
        return log_probabilities(row, token, self._sampling.logprobs or 0)

    def accept(self, token: int) -> None:
        """Notes that `token` was appended to this sequence."""
        self._delay_remaining -= 1
        for processor in self._logits_processors:
            processor.accept(token)

    def _process_logits(self, row: Row) -> Row:
        is_delayed = self._delayed_tokens is not None and self._delay_remaining > 0
        if not self._logits_processors and not is_delayed:
            return row
        row = row.copy()
        for processor in self._logits_processors:
            processor.apply(row)
        if self._delayed_tokens is not None and is_delayed:
            self._delayed_tokens.apply(row)
        return row

    def _sample(self, row: Row) -> int:
        """Samples a token from adjusted logits, natively if possible."""
        if self._native_nucleus is None:
            return self._sample_in_numpy(row)
        try:
            token = self._native_nucleus.sample(row)
        except NotFinite:
            return int(row.argmax())
        if token is not None:
            return token
        weights = self._weights(row, np.maximum.reduce(row))
        return Candidates.of(weights, self._sampling).sample(self._sampling, self._rng)

    def _sample_in_numpy(self, row: Row) -> int:
        """Samples a token from adjusted logits, in numpy."""
        sampling = self._sampling
        peak = np.maximum.reduce(row)
        if not math.isfinite(peak):
            return int(row.argmax())
        if self._mirostat is not None:
            return self._mirostat.sample(self._weights(row, peak), self._rng.random())
        if 0 < sampling.top_k < len(row):
            likely = top_k(row, sampling.top_k)
            weights = self._weights(row[likely], peak)
            return Candidates.of_likeliest(likely, weights, sampling).sample(sampling, self._rng)
        weights = self._weights(row, peak)
        if not self._needs_candidates:
            token = sample_nucleus(weights, sampling, self._rng)
            if token is not None:
                return token
        if self._is_xtc_alone:
            if applies_xtc(sampling, self._rng):
                weights = exclude_top_choices(weights, sampling.xtc_threshold)
            return sample_index(weights, self._rng)
        return Candidates.of(weights, sampling).sample(sampling, self._rng)

    def _weights(self, logits: Row, peak: np.float32) -> Row:
        """Unnormalised probabilities, 1 for the likeliest token: [vocab] float32."""
        weights: Row = logits - peak
        weights *= np.float32(1 / self._sampling.temperature)
        np.exp(weights, out=weights)
        return weights


def _logits_processors(
    sampling: Sampling,
    prompt: abc.Sequence[int],
    token_bytes: abc.Callable[[int], bytes],
    suppressed: abc.Sequence[int],
) -> list[LogitsProcessor]:
    """Returns the logits processors that change something for this request, in their order."""
    processors: list[LogitsProcessor] = []
    if RepeatPenalty.is_wanted(sampling):
        processors.append(RepeatPenalty(sampling, prompt))
    if CountPenalty.is_wanted(sampling):
        processors.append(CountPenalty(sampling))
    if DryPenalty.is_wanted(sampling):
        processors.append(DryPenalty(sampling, prompt, token_bytes))
    if sampling.logit_bias or suppressed:
        processors.append(LogitBias(sampling.logit_bias, suppressed))
    return processors
