"""Drafts by prompt lookup, their acceptance rates, and how many of them are worth computing."""

import itertools
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.speculation.pass_costs import PassCosts
from llm_backend.engine.speculation.prompt_lookup import SharedPromptLookup
from llm_backend.engine.speculation.prompt_lookup_drafter import LookupRates, PromptLookupDrafter
from llm_backend.engine.speculation.speculative_decoding import choose_lookup_counts
from tests.engine.speculation.test_prompt_lookup import looked_up

CHANCES = st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.9, 1.0]), max_size=4).map(
    lambda found: list(itertools.accumulate(found, lambda left, right: left * right))
)


def drafter_of(prompt: list[int], prediction: tuple[int, ...] = ()) -> PromptLookupDrafter:
    return PromptLookupDrafter(SharedPromptLookup().take(prompt, prediction), LookupRates())


def test_prompt_lookup_drafter_repeats_the_prompt():
    drafter = drafter_of([1, 2, 3, 4, 5, 9, 2, 3])

    assert drafter.draft(3) == [4, 5, 9]
    drafter.push(4)
    assert drafter.draft(2) == [5, 9]
    drafter.push(7)
    assert drafter.draft(2) == []


def test_prompt_lookup_drafter_acceptance_rate_follows_accepted_tokens():
    right, wrong = drafter_of([1, 2, 3] * 4), drafter_of([1, 2, 3] * 4)
    before = right.probabilities(1)[0]
    for token in [1, 2, 3] * 10:
        right.push(token)
    for other in range(10, 30):
        for token in (1, 2, other):
            wrong.push(token)
    for token in (1, 2):
        wrong.push(token)

    assert right.probabilities(1)[0] > before
    assert right.probabilities(8)[7] > 0.5
    assert wrong.probabilities(1)[0] < before


def test_prompt_lookup_drafter_acceptance_rates_carry_over_to_the_next_text():
    probabilities = LookupRates()
    first = PromptLookupDrafter(looked_up([1, 2, 3]), probabilities)
    for other in range(10, 30):
        for token in (1, 2, other):
            first.push(token)

    assert (
        PromptLookupDrafter(looked_up([1, 2, 3, 1, 2]), probabilities).probabilities(1)[0]
        < drafter_of([1, 2, 3, 1, 2]).probabilities(1)[0]
    )


def test_prompt_lookup_drafter_counts_accepted_tokens_of_a_prediction():
    drafter = drafter_of([1, 1], prediction=(5, 6, 7, 8))
    assert drafter.draft(9) == [5, 6, 7, 8]
    for token in (5, 6, 9, 5, 6, 7, 8):
        drafter.push(token)

    assert drafter.predicted_tokens == 4  # 5 6, and 7 8 once the place was found again


def linear(base: float, each: float):
    return lambda tokens: base + each * tokens


@given(
    probabilities=st.lists(CHANCES, max_size=4),
    prefilling=st.integers(0, 20),
    capacity=st.integers(0, 12),
    base=st.sampled_from([0.0, 1.0, 10.0]),
    each=st.sampled_from([0.1, 1.0]),
)
def test_lookup_counts_are_optimal(probabilities, prefilling, capacity, base, each):
    targets, cost = len(probabilities) + 1, linear(base, each)
    counts = choose_lookup_counts(
        probabilities, sampled=targets, tokens=targets + prefilling, capacity=capacity, cost=cost
    )

    def speed(numbers: tuple[int, ...]) -> float:
        expected = sum(
            sum(each[:count]) for each, count in zip(probabilities, numbers, strict=True)
        )
        return (targets + expected) / cost(targets + prefilling + sum(numbers))

    assert sum(counts) <= capacity
    every = itertools.product(*(range(len(each) + 1) for each in probabilities))
    possible = [numbers for numbers in every if sum(numbers) <= capacity]
    assert speed(tuple(counts)) * 1.05 + 1e-9 >= max(map(speed, possible))


def test_lookup_counts_prefer_likely_drafts():
    probabilities = [[0.1], [0.1], [0.8, 0.6, 0.5, 0.4]]
    counts = choose_lookup_counts(
        probabilities, sampled=4, tokens=4, capacity=5, cost=linear(10, 0.1)
    )

    assert counts == [1, 0, 4]


def test_lookup_counts_are_zero_if_every_token_costs_the_same():
    assert choose_lookup_counts(
        [[0.9, 0.8]], sampled=1, tokens=1, capacity=9, cost=linear(0, 1)
    ) == [0]


def test_lookup_counts_are_maximal_if_tokens_cost_nothing():
    assert choose_lookup_counts(
        [[0.2, 0.1]], sampled=1, tokens=1, capacity=9, cost=linear(1, 0)
    ) == [2]


def test_pass_costs_are_interpolated_linearly():
    costs = PassCosts()
    costs.record_pass(1, 1.0)
    costs.record_pass(9, 5.0)

    assert [costs.cost(tokens) for tokens in (1, 5, 9)] == [1.0, 3.0, 5.0]


def test_pass_costs_without_measurement_are_small():
    costs = PassCosts()
    assert costs.cost(5) < 2 * costs.cost(1)
    costs.record_pass(1, 0.01)

    assert costs.cost(1) < costs.cost(5) < 2 * costs.cost(1)


def test_pass_costs_bound_an_outlier():
    costs = PassCosts()
    for _ in range(10):
        costs.record_pass(1, 1.0)
    costs.record_pass(1, 1000.0)

    assert costs.cost(1) == pytest.approx(1.2)


def test_pass_costs_expire():
    costs = PassCosts()
    costs.record_pass(1, 1.0)
    costs.record_pass(8, 100.0)
    for _ in range(1001):
        costs.record_pass(1, 1.0)

    assert costs.cost(8) < 2


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([1, 600])),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 40),
)
def test_pass_costs_are_between_those_of_the_nearest_sizes(passes, tokens_of_pass):
    costs, known, number = PassCosts(), {}, 0
    for tokens, seconds, times in passes:
        for _ in range(times):
            costs.record_pass(tokens, seconds)
        number += times
        known[tokens] = number
    fresh = [tokens for tokens, at in known.items() if number - at <= 1000]
    below = max((tokens for tokens in fresh if tokens <= tokens_of_pass), default=None)
    above = min((tokens for tokens in fresh if tokens >= tokens_of_pass), default=None)

    if below is not None and above is not None:
        least, most = costs.cost(below), max(costs.cost(below), costs.cost(above))
        assert least - 1e-9 <= costs.cost(tokens_of_pass) <= most + 1e-9
    assert costs.cost(tokens_of_pass) > 0


def test_pass_costs_lookup_is_independent_of_the_number_of_sizes():
    few, many = PassCosts(), PassCosts()
    for tokens in (1, 200):
        few.record_pass(tokens, 1.0)
    for tokens in range(1, 200):
        many.record_pass(tokens, 1.0)

    assert fastest(lambda: many.cost(100)) < 5 * fastest(lambda: few.cost(100))


def fastest(act) -> float:
    """The least time of several: what else the machine does only ever adds to it."""
    return min(timeit.repeat(act, number=50, repeat=40))
