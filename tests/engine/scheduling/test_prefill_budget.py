from llm_backend.engine.scheduling.prefill_budget import PrefillBudget


def record_passes(budget: PrefillBudget, *passes: tuple[int, float]) -> None:
    """Passes of so many tokens that took so long."""
    for tokens, seconds in passes:
        budget.record_pass(tokens, seconds)


def test_prefill_budget_is_unlimited_without_interactive_requests():
    budget = PrefillBudget()

    assert budget.batch_prefill_tokens(now=0) is None
    budget.record_interactive(now=1)
    assert budget.batch_prefill_tokens(now=2) is not None
    assert budget.batch_prefill_tokens(now=100) is None


def test_prefill_budget_grows_with_the_prefill_speed():
    fast, slow = PrefillBudget(), PrefillBudget()
    for budget, speed in ((fast, 10_000), (slow, 100)):
        budget.record_interactive(now=0)
        record_passes(budget, *[(200, 200 / speed)] * 5)

    assert fast.batch_prefill_tokens(now=0) == 500
    assert slow.batch_prefill_tokens(now=0) == 32


def test_prefill_budget_ignores_passes_without_prefill():
    budget = PrefillBudget()
    budget.record_interactive(now=0)
    record_passes(budget, (512, 0.1), *[(2, 0.1)] * 100)

    assert budget.batch_prefill_tokens(now=0) == 256
