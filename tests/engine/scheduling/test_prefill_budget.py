from llm_backend.engine.scheduling.prefill_budget import PrefillBudget


def measured(pace: PrefillBudget, *passes: tuple[int, float]) -> None:
    """Passes of so many tokens that took so long."""
    for tokens, seconds in passes:
        pace.record_pass(tokens, seconds)


def test_prefill_budget_is_unlimited_without_interactive_requests():
    pace = PrefillBudget()

    assert pace.batch_prefill_tokens(now=0) is None
    pace.record_interactive(now=1)
    assert pace.batch_prefill_tokens(now=2) is not None
    assert pace.batch_prefill_tokens(now=100) is None


def test_prefill_budget_grows_with_the_prefill_speed():
    fast, slow = PrefillBudget(), PrefillBudget()
    for pace, speed in ((fast, 10_000), (slow, 100)):
        pace.record_interactive(now=0)
        measured(pace, *[(200, 200 / speed)] * 5)

    assert fast.batch_prefill_tokens(now=0) == 500
    assert slow.batch_prefill_tokens(now=0) == 32


def test_prefill_budget_ignores_passes_without_prefill():
    pace = PrefillBudget()
    pace.record_interactive(now=0)
    measured(pace, (512, 0.1), *[(2, 0.1)] * 100)

    assert pace.batch_prefill_tokens(now=0) == 256
