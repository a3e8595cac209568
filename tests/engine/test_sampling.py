from collections import Counter

import numpy as np
import pytest

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling import NoChoice, Sampler, log_probabilities


def row(*probabilities: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, dtype=np.float32))


def sampler(prompt: tuple[int, ...] = (), index: int = 0, suppressed=(), **fields) -> Sampler:
    options = {"index": index, "prompt": prompt, "suppressed": suppressed, "token_bytes": bytes}
    return Sampler(Sampling(**fields), **options)


def frequencies(chooser: Sampler, logits: np.ndarray, times: int = 4000) -> dict[int, float]:
    """Relative frequency of each chosen token."""
    counts = Counter(chooser.choose(logits).token for _ in range(times))
    return {token: count / times for token, count in counts.items()}


def test_sampler_is_greedy_at_temperature_zero():
    assert sampler(temperature=0).choose(row(0.2, 0.5, 0.3)).token == 1


def test_sampler_is_greedy_at_a_temperature_near_zero():
    assert frequencies(sampler(temperature=1e-40), row(0.3, 0.4, 0.3), times=50) == {1: 1.0}


def test_sampler_samples_tokens_by_their_probability():
    shares = frequencies(sampler(seed=1), row(0.5, 0.3, 0.2))

    assert shares == pytest.approx({0: 0.5, 1: 0.3, 2: 0.2}, abs=0.03)


def test_sampler_samples_tokens_of_a_large_vocabulary_by_their_probability():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(5000).astype(np.float32) * 4
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    shares = frequencies(sampler(seed=1), logits)

    likely = np.argsort(-expected)[:5]
    assert [shares[token] for token in likely] == pytest.approx(expected[likely], abs=0.03)


def test_sampler_low_temperature_sharpens():
    shares = frequencies(sampler(temperature=0.5, seed=1), row(0.6, 0.3, 0.1))

    assert shares[0] == pytest.approx(0.36 / 0.46, abs=0.03)


def test_sampler_top_k_selects_the_k_likeliest():
    shares = frequencies(sampler(top_k=2, seed=1), row(0.2, 0.5, 0.3))

    assert shares == pytest.approx({1: 0.625, 2: 0.375}, abs=0.03)


def test_sampler_top_p_selects_the_smallest_set_that_reaches_it():
    shares = frequencies(sampler(top_p=0.7, seed=1), row(0.2, 0.5, 0.3))

    assert shares == pytest.approx({1: 0.625, 2: 0.375}, abs=0.03)


def test_sampler_top_p_zero_is_greedy():
    assert set(frequencies(sampler(top_p=0.0, seed=1), row(0.2, 0.5, 0.3), times=50)) == {1}


def test_sampler_top_p_agrees_with_sorting_on_a_flat_distribution():
    logits = np.random.default_rng(3).standard_normal(1000).astype(np.float32) * 0.1
    order = np.argsort(-logits)
    weights = np.exp(logits[order])
    inside = int(np.searchsorted(np.cumsum(weights) / weights.sum(), 0.3)) + 1

    assert set(frequencies(sampler(top_p=0.3, seed=1), logits)) <= set(order[:inside].tolist())


@pytest.mark.parametrize("size", [100, 5000, 5001, 5063])
def test_top_k_finds_the_largest_values_without_sorting(size):
    logits = np.random.default_rng(size).permutation(size).astype(np.float32)
    top = log_probabilities(logits, token=0, top=20).top

    assert [item.token for item in top] == np.argsort(-logits)[:20].tolist()


def test_sampler_min_p_removes_unlikely_tokens():
    shares = frequencies(sampler(min_p=0.5, seed=1), row(0.5, 0.3, 0.2))

    assert shares == pytest.approx({0: 0.625, 1: 0.375}, abs=0.03)


def test_sampler_applies_top_k_before_top_p():
    shares = frequencies(sampler(top_k=2, top_p=0.6, seed=1), row(0.2, 0.5, 0.3), times=50)

    assert shares == {1: 1.0}


def test_logit_bias_forbids_and_forces_tokens():
    assert sampler(temperature=0, logit_bias={1: -100}).choose(row(0.3, 0.6, 0.1)).token == 0
    assert sampler(temperature=0, logit_bias={2: 100}).choose(row(0.3, 0.6, 0.1)).token == 2


def test_sampler_never_chooses_suppressed_tokens():
    shares = frequencies(sampler(seed=1, suppressed=(0, 1)), row(0.5, 0.3, 0.2), times=200)

    assert shares == {2: 1.0}


def test_presence_penalty_counts_once_and_frequency_penalty_each_time():
    logits = np.array([3.0, 2.4, 0.0], dtype=np.float32)
    present = sampler(temperature=0, presence_penalty=0.5)
    frequent = sampler(temperature=0, frequency_penalty=0.35)

    assert [present.choose(logits).token for _ in range(3)] == [0, 0, 0]
    assert [frequent.choose(logits).token for _ in range(3)] == [0, 0, 1]


def test_repeat_penalty_counts_prompt_tokens_but_additive_penalties_do_not():
    logits = np.array([3.0, 2.9], dtype=np.float32)

    assert sampler(prompt=(0,), temperature=0, presence_penalty=1).choose(logits).token == 0
    assert sampler(prompt=(0,), temperature=0, repeat_penalty=1.5).choose(logits).token == 1


def test_repeat_penalty_lowers_negative_logits():
    logits = np.array([-1.0, -1.1], dtype=np.float32)

    assert sampler(prompt=(0,), temperature=0, repeat_penalty=1.5).choose(logits).token == 1


def test_repeat_penalty_counts_the_last_n_tokens():
    logits = np.array([3.0, 2.9, 2.8], dtype=np.float32)

    def chosen(window: int | None) -> list[int]:
        chooser = sampler(prompt=(0, 2, 2), temperature=0, repeat_penalty=1.5, repeat_last_n=window)
        return [chooser.choose(logits).token for _ in range(4)]

    assert chosen(0) == [0, 0, 0, 0]
    assert chosen(1) == [0, 1, 0, 1]
    assert chosen(2) == [0, 1, 2, 0]
    assert chosen(None) == [1, 0, 0, 0]


def test_sampler_delays_end_tokens_until_min_tokens():
    chooser = Sampler(
        Sampling(temperature=0), index=0, prompt=(), token_bytes=bytes, delayed=[0], min_tokens=2
    )

    assert [chooser.choose(row(0.6, 0.4)).token for _ in range(4)] == [1, 1, 0, 0]


def test_greedy_sampling_uses_no_random_number():
    logits = row(0.2, 0.5, 0.3)
    chooser = sampler(temperature=0, mirostat=2, xtc_probability=1.0, min_p=0.5)

    assert chooser._process_logits(logits) is logits


def test_sampler_seed_and_index_determine_the_tokens():
    logits = row(*np.full(100, 0.01))

    def tokens(**fields: int) -> list[int]:
        chooser = sampler(seed=7, **fields)
        return [chooser.choose(logits).token for _ in range(20)]

    assert tokens() == tokens()
    assert tokens() != tokens(index=1)


def test_sampler_accepts_any_integer_as_seed():
    assert sampler(seed=-(2**63)).choose(row(1.0)).token == 0


def test_logprobs_are_of_the_model_before_any_filter():
    choice = sampler(temperature=0.1, top_k=1, logprobs=2, logit_bias={2: 100}).choose(
        row(0.5, 0.3, 0.2)
    )

    assert choice.token == 2
    assert choice.logprob == pytest.approx(np.log(0.2), abs=1e-5)
    assert [top.token for top in choice.top] == [0, 1]
    assert [top.logprob for top in choice.top] == pytest.approx(np.log([0.5, 0.3]), abs=1e-5)


def test_logprobs_list_at_most_all_tokens():
    assert len(log_probabilities(row(0.5, 0.5), token=0, top=20).top) == 2


def test_sampler_does_not_change_the_logits():
    logits = row(0.5, 0.3, 0.2)
    before = logits.copy()
    sampler(temperature=0.7, presence_penalty=1, top_p=0.5, logprobs=1).choose(logits)

    assert (logits == before).all()


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampler_raises_if_no_token_can_be_chosen(value, temperature):
    logits = np.full(3, value, dtype=np.float32)

    with pytest.raises(NoChoice, match="no token"):
        sampler(temperature=temperature).choose(logits)


@pytest.mark.parametrize("allowed", [[0, 2], [1, 2], [2]])
def test_sampler_with_a_mask_is_greedy_at_temperature_zero(allowed):
    mask = np.isin(np.arange(3), allowed)
    logits = row(0.5, 0.3, 0.2)

    assert sampler(temperature=0).choose(logits, mask).token == allowed[0]
    assert (logits == row(0.5, 0.3, 0.2)).all()


@pytest.mark.parametrize("fields", [{}, {"top_k": 2}, {"top_p": 0.99}, {"min_p": 0.01}])
def test_sampler_with_a_mask_samples_by_probability(fields):
    chooser, mask = sampler(seed=1, **fields), np.array([False, True, True, False])
    logits = row(0.6, 0.2, 0.1, 0.1)
    counts = Counter(chooser.choose(logits, mask).token for _ in range(4000))

    assert counts[1] / 4000 == pytest.approx(2 / 3, abs=0.03)
    assert counts[1] + counts[2] == 4000


def test_sampler_with_an_empty_mask_raises():
    with pytest.raises(NoChoice):
        sampler(temperature=0).choose(row(0.5, 0.5), np.array([False, False]))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"top_k": 3},
        {"top_p": 0.8, "typical_p": 0.9},
        {"xtc_probability": 0.5},
        {"mirostat": 2},
    ],
)
def test_sampler_with_one_allowed_token_uses_no_random_number(parameters):
    chosen, accepted = (sampler(seed=9, **parameters) for _ in range(2))
    logits = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    only = np.arange(50) == 7
    texts: list[list[int]] = [[], []]
    for _ in range(20):
        assert chosen.choose(logits, only).token == 7
        accepted.accept(7)
        for text, chooser in zip(texts, (chosen, accepted), strict=True):
            text.append(chooser.choose(logits).token)

    assert texts[0] == texts[1]
