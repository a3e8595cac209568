"""Sampling filters, compared with the same rules applied to one candidate at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling import Sampler
from llm_backend.engine.sampling.filters import Candidates

SHARE = st.floats(0, 1, allow_nan=False, width=16)
LOGITS = st.lists(st.integers(-40, 40), min_size=1, max_size=30, unique=True)
WISHES = st.fixed_dictionaries(
    {"typical_p": SHARE, "top_p": SHARE, "min_p": SHARE, "xtc_threshold": SHARE}
)


def expected_selection(shares: dict[int, float], parameters: dict[str, float]) -> set[int]:
    """Typical-p, top-p, min-p and XTC as they are described, on probabilities by token."""
    if parameters["typical_p"] < 1:
        mean = -sum(share * math.log(share) for share in shares.values())
        order = sorted(shares, key=lambda token: abs(-math.log(shares[token]) - mean))
        shares = until(shares, order, lambda reached: reached > parameters["typical_p"])
    best_first = sorted(shares, key=lambda token: -shares[token])
    nucleus = until(shares, best_first, lambda reached: reached >= parameters["top_p"])
    best = max(shares.values())
    shares = normal({t: s for t, s in nucleus.items() if shares[t] >= parameters["min_p"] * best})
    strong = [token for token in best_first if shares.get(token, -1) >= parameters["xtc_threshold"]]
    if parameters["xtc_threshold"] <= 0.5:
        shares = {t: s for t, s in shares.items() if t not in strong[:-1]}
    return set(shares)


def until(shares: dict[int, float], order: list[int], is_enough) -> dict[int, float]:
    chosen, reached = {}, 0.0
    for token in order:
        chosen[token] = shares[token]
        reached += shares[token]
        if is_enough(reached):
            break
    return normal(chosen)


def normal(shares: dict[int, float]) -> dict[int, float]:
    total = sum(shares.values())
    return {token: share / total for token, share in shares.items()}


def selected(logits: list[int], parameters: dict[str, float]) -> set[int]:
    weights = np.exp(np.array(logits, dtype=np.float32) / 8 - max(logits) / 8)
    sampling = Sampling(xtc_probability=1, **parameters)
    order = np.argsort(-weights)
    found = []
    for candidates in (
        Candidates.of(weights, sampling),
        Candidates.of_likeliest(order, weights[order], sampling),
    ):
        if sampling.xtc_threshold <= 0.5:
            candidates.exclude_top_choices(sampling.xtc_threshold)
        found.append(set(candidates.tokens.tolist()))
    assert found[0] == found[1]
    return found[0]


def nudged(parameters: dict[str, float], by: float) -> dict[str, float]:
    return {name: value + by for name, value in parameters.items()}


@given(logits=LOGITS, parameters=WISHES)
def test_filters_select_by_their_rules(logits, parameters):
    shares = normal(dict(enumerate(np.exp(np.array(logits) / 8).tolist())))
    possible = [expected_selection(shares, nudged(parameters, by)) for by in (0, -1e-6, 1e-6)]

    if possible[0] == possible[1] == possible[2]:  # no sum lies just at a border
        assert selected(logits, parameters) == possible[0]


@given(logits=LOGITS, parameters=WISHES, top_k=st.integers(0, 31), seed=st.integers(0, 99))
def test_filters_always_leave_a_token(logits, parameters, top_k, seed):
    sampling = Sampling(**parameters, xtc_probability=0.5, top_k=top_k, seed=seed)
    chooser = Sampler(sampling, index=0, prompt=(), token_bytes=bytes)

    assert 0 <= chooser.choose(np.array(logits, dtype=np.float32)).token < len(logits)


def shares_of(times: int = 4000, **parameters: float) -> dict[int, float]:
    chooser = Sampler(Sampling(seed=1, **parameters), index=0, prompt=(), token_bytes=bytes)
    row = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    drawn = [chooser.choose(row).token for _ in range(times)]
    return {token: drawn.count(token) / times for token in set(drawn)}


def test_xtc_removes_strong_tokens_by_its_probability():
    dropped = {2: 0.2 / 0.3, 3: 0.1 / 0.3}
    shares = shares_of(xtc_probability=0.5, xtc_threshold=0.15)

    expected = {0: 0.4 / 2, 1: 0.3 / 2, 2: (0.2 + dropped[2]) / 2, 3: (0.1 + dropped[3]) / 2}
    assert shares == pytest.approx(expected, abs=0.03)


def test_typical_p_prefers_tokens_of_typical_surprise():
    assert set(shares_of(times=200, typical_p=0.25)) == {1}


def test_xtc_without_strong_tokens_changes_nothing():
    assert shares_of(xtc_probability=1, xtc_threshold=0.5) == shares_of(
        xtc_probability=1, xtc_threshold=0.41
    )


def test_temperature_zero_overrides_other_filters():
    parameters = {"xtc_probability": 1.0, "xtc_threshold": 0.1, "typical_p": 0.1, "mirostat": 2}

    assert shares_of(times=50, temperature=0, **parameters) == {0: 1.0}


@pytest.mark.parametrize(
    "parameters",
    [
        {"typical_p": 0.2},
        {"typical_p": 0.95},
        {"typical_p": 0.9, "top_p": 0.5},
        {"top_p": 0.3, "xtc_probability": 1.0, "xtc_threshold": 0.001},
        {"min_p": 0.01, "xtc_probability": 1.0, "xtc_threshold": 0.001},
    ],
)
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_filters_agree_on_large_and_small_vocabularies(parameters, spread):
    logits = np.random.default_rng(1).standard_normal(20_000) * spread
    weights = np.exp(logits - logits.max()).astype(np.float32)
    whole = {"typical_p": 1.0, "top_p": 1.0, "min_p": 0.0, "xtc_threshold": 1.0} | parameters
    shares = normal(dict(enumerate(weights.astype(np.float64).tolist())))
    candidates = Candidates.of(weights, Sampling(**parameters))
    if "xtc_threshold" in parameters:
        candidates.exclude_top_choices(parameters["xtc_threshold"])

    found, expected = set(candidates.tokens.tolist()), expected_selection(shares, whole)
    assert len(found ^ expected) <= 1 + len(expected) // 1000  # rounding moves a border a little
