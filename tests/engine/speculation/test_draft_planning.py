"""A draft model changes how fast an answer comes, never what it says."""

import itertools

import pytest

from llm_backend.engine.messages import Delta, Sampling
from llm_backend.engine.messages.address import Address
from llm_backend.engine.model import DecodeError
from llm_backend.engine.speculation.draft_planning import (
    DraftCosts,
    DraftTarget,
    choose_draft_lengths,
)
from llm_backend.engine.speculation.drafter import Drafter
from tests.engine.fakes import FakeModel, expected_text, generate
from tests.engine.test_generator import Bench

SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=0, logprobs=2),
    Sampling(seed=3, temperature=0.3),
    Sampling(seed=3, top_k=3, repeat_penalty=1.1, mirostat=2),
]


class Contrary(FakeModel):
    """Thinks last what the model thinks first."""

    def forward(self, work):
        return -super().forward(work)


class Failing(FakeModel):
    """Gives up after the first pass."""

    def forward(self, work):
        if self.computed_tokens:
            raise DecodeError("the pass went wrong")
        return super().forward(work)


def bench(draft: FakeModel | None, draft_tokens: int = 4, **fields: object) -> Bench:
    """A model that repeats nothing, and one that drafts for it."""
    model = FakeModel(**{"context_tokens": 256, "batch_tokens": 64, **fields})
    drafter = None if draft is None else Drafter(draft, model.vocabulary.size, clock=lambda: 0.0)
    return Bench(model, drafter, draft_tokens=draft_tokens, logit_rows=16)


def twin(kind: type[FakeModel] = FakeModel, **fields: object) -> FakeModel:
    """A model that thinks like the one of `bench`."""
    return kind(**{"context_tokens": 256, "batch_tokens": 64, **fields})


def run_alone(engine: Bench, command) -> list[tuple]:
    engine.submit(command)
    engine.run()
    return [
        (
            engine.text(command.id, index),
            deltas[-1].completion_tokens,
            [logprob for delta in deltas for logprob in delta.logprobs],
            deltas[-1].finish_reason,
        )
        for index in range(command.n)
        for deltas in [engine.deltas(command.id, index)]
    ]


def last(engine: Bench, name: str = "1") -> Delta:
    return engine.deltas(name)[-1]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"ignore_eos": True}, {"stop": ["a", "xy"]}])
@pytest.mark.parametrize("kind", [FakeModel, Contrary, Failing])
def test_answer_is_the_same_with_and_without_a_draft_model(kind, sampling, fields):
    command = generate("tell me", max_tokens=60, sampling=sampling, **fields)

    assert run_alone(bench(twin(kind)), command) == run_alone(bench(None), command)


def test_accepted_drafts_save_most_passes():
    engine = bench(twin())
    run_alone(engine, generate("abc", max_tokens=101, ignore_eos=True))
    end = last(engine)

    assert end.accepted_tokens >= 0.9 * end.drafted_tokens > 0
    assert engine.generator.statistics.passes == 101 - end.accepted_tokens
    assert engine.generator.statistics.passes < 35


def test_rejected_drafts_stop_soon():
    engine = bench(twin(Contrary))
    engine.submit(generate("abc", max_tokens=200, ignore_eos=True))
    while not engine.generator.is_idle:
        before = engine.generator.statistics.computed_tokens
        engine.generator.step(0)
        spent = engine.generator.statistics.computed_tokens - before
        engine.generator.statistics.busy_s += 0.01 * (3 + spent)

    assert last(engine).accepted_tokens == 0
    assert 0 < last(engine).drafted_tokens < 30


def test_slow_draft_model_stops_drafting():
    seconds = itertools.count()
    model, draft = twin(), twin()
    drafter = Drafter(draft, 99, clock=lambda: next(seconds) * 0.01)
    engine = Bench(model, drafter, draft_tokens=4, logit_rows=16)
    engine.submit(generate("abc", max_tokens=200, ignore_eos=True))
    while not engine.generator.is_idle:
        drafting_s = drafter.busy_s
        engine.generator.step(0)
        engine.generator.statistics.busy_s += 0.01 + drafter.busy_s - drafting_s

    assert 0 < draft.computed_tokens < 20


def test_draft_model_prefills_a_long_prompt_in_chunks():
    draft = twin(context_tokens=1024, batch_tokens=512)
    engine = bench(draft, context_tokens=1024, batch_tokens=512)
    prompt = "abcdefghi " * 60
    run_alone(engine, generate(prompt, max_tokens=60, ignore_eos=True, sampling=Sampling(seed=1)))

    assert draft.largest_pass == 128
    assert last(engine).drafted_tokens > 0


def test_draft_model_drafts_within_its_context():
    engine = bench(twin(context_tokens=40))
    command = generate("abc", max_tokens=150, ignore_eos=True)

    assert run_alone(engine, command) == run_alone(bench(None), command)
    assert 0 < last(engine).drafted_tokens < 50


def test_draft_model_prefill_time_does_not_count_as_draft_cost():
    drafter = Drafter(twin(), 99, clock=lambda: 0.0)
    drafter._costs.record_pass(128, 2.0)

    assert drafter.cost(128) == 2
    assert drafter.cost(1) == 0


def test_draft_model_batches_sequences():
    draft = twin()
    engine = bench(draft)
    engine.submit(*(generate(name, id=name, max_tokens=40, ignore_eos=True) for name in "abcd"))
    engine.run()
    passes = engine.generator.statistics.passes

    assert passes < 25
    for name in "abcd":
        command = generate(name, max_tokens=40, ignore_eos=True)
        assert engine.text(name) == run_alone(bench(None), command)[0][0]
        assert last(engine, name).accepted_tokens > 20


def test_draft_model_is_consistent_after_a_cancellation():
    engine = bench(twin())
    engine.submit(generate("tell", id="a", max_tokens=100, ignore_eos=True))
    for _ in range(8):
        engine.generator.step(0)
    engine.generator.cancel(Address(1, "a"))
    command = generate("teller", id="b", max_tokens=100, ignore_eos=True)

    assert run_alone(engine, command) == run_alone(bench(None), command)
    assert last(engine, "b").accepted_tokens > 60


def test_draft_model_is_consistent_after_a_failed_step():
    draft = twin()
    engine = bench(draft)
    engine.submit(generate("tell", id="a", max_tokens=100, ignore_eos=True))
    for _ in range(5):
        engine.generator.step(0)
    draft.fails_next_pass = True
    with pytest.raises(RuntimeError):
        engine.generator.step(0)
    engine.generator.abort("it went wrong")
    command = generate("tell", id="b", max_tokens=100, ignore_eos=True)

    assert run_alone(engine, command) == run_alone(bench(None), command)
    assert last(engine, "b").accepted_tokens > 60


def test_draft_model_drafts_tokens_of_both_vocabularies_only():
    model = twin()
    drafter = Drafter(twin(), 5, clock=lambda: 0.0)
    engine = Bench(model, drafter, draft_tokens=4, logit_rows=16)
    engine.submit(generate("abc", max_tokens=30))
    engine.run()

    assert engine.text("1") == expected_text(generate("abc", max_tokens=30), 0)


def test_draft_model_is_retried_after_many_passes():
    draft = twin(Contrary)
    engine = bench(draft)
    run_alone(engine, generate("abc", max_tokens=60, ignore_eos=True))
    given_up_at = draft.computed_tokens
    run_alone(engine, generate("abd", id="2", max_tokens=60, ignore_eos=True))
    left_alone_at = draft.computed_tokens
    for number in range(12):
        run_alone(engine, generate("abe", id=f"more {number}", max_tokens=60, ignore_eos=True))

    assert left_alone_at < given_up_at + 20
    assert draft.computed_tokens > left_alone_at + 20


def test_draft_model_reuses_the_common_prefix():
    draft = twin()
    engine = bench(draft)
    prompt = "tell me " * 8
    run_alone(engine, generate(prompt, max_tokens=20, ignore_eos=True))
    read_at = draft.computed_tokens
    text = engine.text("1")
    run_alone(engine, generate(prompt + text + "more", id="2", max_tokens=20, ignore_eos=True))

    assert read_at > len(prompt)
    assert draft.computed_tokens - read_at < 60


def linear(base: float, each: float):
    return lambda tokens: base + each * tokens


CHEAP = DraftCosts(model=linear(10, 0.1), draft=linear(1, 0.01))


def target(**fields: float) -> DraftTarget:
    return DraftTarget(
        **{
            "acceptance_rate": 0.8,
            "uncomputed_tokens": 1,
            "draft_limit": 8,
            "remaining_tokens": 64,
            **fields,
        }
    )


def test_draft_planning_uses_a_cheap_accurate_draft_model():
    (count,) = choose_draft_lengths([target()], tokens=1, capacity=8, costs=CHEAP)

    assert 2 < count <= 8


def test_draft_planning_skips_an_expensive_draft_model():
    costs = DraftCosts(model=linear(10, 0.1), draft=linear(9, 0.1))

    assert choose_draft_lengths([target()], tokens=1, capacity=8, costs=costs) == [0]


def test_draft_planning_prefers_equally_good_lookup_drafts():
    repeating = target(lookup_drafts=8, expected_accepted=7, lookup_acceptance_rate=0.97)

    assert choose_draft_lengths([repeating], tokens=1, capacity=8, costs=CHEAP) == [0]


def test_draft_planning_replaces_bad_lookup_drafts():
    repeating = target(lookup_drafts=1, expected_accepted=0.2, lookup_acceptance_rate=0.2)

    assert choose_draft_lengths([repeating], tokens=1, capacity=8, costs=CHEAP)[0] > 2


def test_draft_planning_stays_within_capacity():
    repeating = target(lookup_drafts=6, expected_accepted=5, lookup_acceptance_rate=0.95)
    counts = choose_draft_lengths(
        [repeating, target(), target()], tokens=3, capacity=11, costs=CHEAP
    )

    assert counts[0] == 0
    assert 0 < sum(counts) <= 5


def test_draft_planning_prefills_a_long_text_only_if_many_tokens_remain():
    costs = DraftCosts(model=linear(10, 0.1), draft=linear(1, 0.05))

    assert choose_draft_lengths(
        [target(uncomputed_tokens=4000, remaining_tokens=20)], tokens=1, capacity=8, costs=costs
    ) == [0]
    assert choose_draft_lengths(
        [target(uncomputed_tokens=4000, remaining_tokens=900)], tokens=1, capacity=8, costs=costs
    ) != [0]


def test_draft_planning_long_prefill_does_not_block_other_drafts():
    costs = DraftCosts(model=linear(10, 0.1), draft=linear(1, 0.05))
    counts = choose_draft_lengths(
        [target(uncomputed_tokens=4000, remaining_tokens=20), target()],
        tokens=2,
        capacity=8,
        costs=costs,
    )

    assert counts[0] == 0 < counts[1]


def test_draft_planning_skips_sequences_without_capacity():
    assert choose_draft_lengths([target(draft_limit=0)], tokens=1, capacity=8, costs=CHEAP) == [0]
