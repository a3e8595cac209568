from llm_backend.engine.scheduling.prefill_budget import PrefillBudget, PrefillLimits


def record_passes(budget: PrefillBudget, *passes: tuple[int, float]) -> None:
    """Record passes, given as tokens and seconds: prefill from 32 tokens on, else decoding."""
    for tokens, seconds in passes:
        budget.record_pass(tokens, seconds, prefill_tokens=tokens if tokens >= 32 else 0)


def test_prefill_budget_is_unlimited_without_interactive_requests():
    budget = PrefillBudget()

    assert budget.limits(now=0).batch is None
    budget.record_interactive(now=1)
    assert budget.limits(now=2).batch is not None
    assert budget.limits(now=100).batch is None


def test_prefill_budget_grows_with_the_prefill_speed():
    fast, slow = PrefillBudget(), PrefillBudget()
    for budget, speed in ((fast, 10_000), (slow, 100)):
        budget.record_interactive(now=0)
        record_passes(budget, *[(200, 200 / speed)] * 5)

    assert fast.limits(now=0).batch == 500
    assert slow.limits(now=0).batch == 32


def test_prefill_budget_ignores_passes_without_prefill():
    budget = PrefillBudget()
    budget.record_interactive(now=0)
    record_passes(budget, (512, 0.1), *[(2, 0.1)] * 100)

    assert budget.limits(now=0).batch == 256


def test_prefill_budget_gives_a_long_prompt_a_part_of_each_pass_if_that_is_quick():
    budget = PrefillBudget()
    record_passes(budget, (512, 0.05), (16, 0.02))

    assert budget.limits(now=0) == PrefillLimits(long=102)


def test_prefill_budget_gives_a_long_prompt_few_passes_if_prefill_is_slow():
    budget = PrefillBudget()
    record_passes(budget, (512, 1.0), (16, 0.05))

    assert budget.limits(now=0) == PrefillLimits(long=614, passes_between=24)


def test_prefill_budget_begins_with_small_chunks_of_a_long_prompt():
    assert PrefillBudget().limits(now=0) == PrefillLimits(long=64, passes_between=24)


def test_prefill_budget_follows_the_newest_chunk_of_a_long_prompt():
    budget = PrefillBudget()
    record_passes(budget, (512, 0.5), (16, 0.05))
    budget.record_pass(512, 2.56, prefill_tokens=512, has_long_chunk=True)
    record_passes(budget, (512, 0.5))

    assert budget.limits(now=0).long == 240


def test_prefill_budget_takes_no_decoding_pass_for_prefill():
    budget = PrefillBudget()
    record_passes(budget, (512, 1.0))
    for _ in range(100):  # of 64 streams
        budget.record_pass(64, 0.5, prefill_tokens=0)

    assert budget.tokens_per_s == 512
    assert budget.limits(now=0) == PrefillLimits(long=128)


def test_prefill_budget_ignores_a_pass_with_little_prefill():
    budget = PrefillBudget()
    record_passes(budget, (512, 1.0), (16, 0.05))
    budget.record_pass(70, 0.5, prefill_tokens=6)

    assert budget.tokens_per_s == 512
    assert budget.limits(now=0).long == 614
