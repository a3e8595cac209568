from llm_backend.engine.scheduling.prefill_budget import PrefillBudget


def measured(pace: PrefillBudget, *passes: tuple[int, float]) -> None:
    """Passes of so many tokens that took so long."""
    for tokens, seconds in passes:
        pace.record_pass(tokens, seconds)


def test_batch_work_has_whole_passes_while_nobody_comes():
    pace = PrefillBudget()

    assert pace.batch_prefill_tokens(now=0) is None
    pace.record_interactive(now=1)
    assert pace.batch_prefill_tokens(now=2) is not None
    assert pace.batch_prefill_tokens(now=100) is None


def test_a_fast_model_may_read_more_while_somebody_waits_than_a_slow_one():
    fast, slow = PrefillBudget(), PrefillBudget()
    for pace, speed in ((fast, 10_000), (slow, 100)):
        pace.record_interactive(now=0)
        measured(pace, *[(200, 200 / speed)] * 5)

    assert fast.batch_prefill_tokens(now=0) == 500
    assert slow.batch_prefill_tokens(now=0) == 32


def test_passes_that_read_no_prompt_say_nothing_of_how_fast_prompts_are_read():
    pace = PrefillBudget()
    pace.record_interactive(now=0)
    measured(pace, (512, 0.1), *[(2, 0.1)] * 100)

    assert pace.batch_prefill_tokens(now=0) == 256
