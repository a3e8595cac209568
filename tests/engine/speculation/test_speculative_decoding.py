"""Computing ahead changes how fast an answer comes, never what it says."""

import msgspec
import numpy as np
import pytest

from llm_backend.engine.messages import Delta, Failed, Sampling
from llm_backend.engine.messages.address import Address
from tests.engine.fakes import LETTERS, FakeModel, expected_text, generate
from tests.engine.test_generator import Bench

PROMPT = "say it again, say it again"
SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=0, logprobs=2),
    Sampling(seed=3),
    Sampling(seed=3, top_k=3, repeat_penalty=1.1, dry_multiplier=0.1, mirostat=2),
    Sampling(seed=3, temperature=0.6, top_p=0.9, presence_penalty=0.1, xtc_probability=0.5),
]


def bench(draft_tokens: int = 4, memory: int = 2, **fields: object) -> Bench:
    """A model that soon repeats itself, and an engine that drafts by lookup."""
    model = FakeModel(**{"context_tokens": 256, "batch_tokens": 64, "memory": memory, **fields})
    return Bench(model, draft_tokens=draft_tokens, logit_rows=16)


def run_alone(engine: Bench, command) -> list[dict]:
    """All that an answer's deltas say together, for each choice, but for how it was computed."""
    engine.submit(command)
    engine.run()
    return [
        {
            "text": engine.text(command.id, index),
            "tokens": deltas[-1].completion_tokens,
            "logprobs": [logprob for delta in deltas for logprob in delta.logprobs],
            "end": (deltas[-1].finish_reason, deltas[-1].stop_sequence),
            "ends": sum(delta.finish_reason is not None for delta in deltas),
        }
        for index in range(command.n)
        for deltas in [engine.deltas(command.id, index)]
    ]


def last(engine: Bench, name: str = "1") -> Delta:
    return engine.deltas(name)[-1]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ignore_eos": True},
        {"n": 3, "best_of": 5},
        {"echo": True, "n": 2},
        {"stop": ["a", "x", "q", "hy"]},
        {"min_tokens": 30, "stop_token_ids": [4, 9, 17]},
        {"prediction": "say it once more"},
    ],
)
def test_answer_is_the_same_with_and_without_speculation(sampling, fields):
    command = generate(PROMPT, max_tokens=60, sampling=sampling, **fields)

    assert run_alone(bench(), command) == run_alone(bench(draft_tokens=0), command)


@pytest.mark.parametrize("max_tokens", range(1, 60, 7))
def test_speculation_respects_max_tokens(max_tokens):
    engine = bench()
    command = generate(PROMPT, max_tokens=max_tokens, ignore_eos=True)

    assert run_alone(engine, command)[0]["tokens"] == max_tokens


def test_speculation_saves_passes():
    engine, plain = bench(), bench(draft_tokens=0)
    command = generate(PROMPT, max_tokens=200, ignore_eos=True)
    run_alone(engine, command)
    run_alone(plain, command)

    assert engine.generator.statistics.passes < 0.6 * plain.generator.statistics.passes
    assert last(engine).accepted_tokens <= last(engine).drafted_tokens
    assert last(engine).completion_tokens == 200
    assert last(plain).drafted_tokens == 0


def test_every_accepted_token_saves_a_pass():
    engine = bench()
    run_alone(engine, generate(PROMPT, max_tokens=200, ignore_eos=True))
    end = last(engine)

    reading = -(-len(PROMPT) // 64)
    assert engine.generator.statistics.passes == reading + 199 - end.accepted_tokens


def test_prediction_saves_passes_and_is_counted():
    plain = bench(memory=None)
    answer = run_alone(plain, generate("abc", max_tokens=40, ignore_eos=True))[0]["text"]
    engine = bench(memory=None)
    command = generate("abc", max_tokens=40, ignore_eos=True, prediction=answer)
    again = run_alone(engine, command)[0]["text"]

    assert again == answer
    assert last(engine).predicted_tokens == 40
    assert engine.generator.statistics.passes < plain.generator.statistics.passes / 2


def test_wrong_prediction_changes_no_answer():
    engine = bench(memory=None)
    command = generate("abc", max_tokens=40, prediction="something else altogether")

    assert run_alone(engine, command) == run_alone(bench(draft_tokens=0, memory=None), command)
    assert last(engine).predicted_tokens < 10


def test_prediction_is_counted_without_speculation():
    answer = expected_text(generate("abc", max_tokens=12), 0)
    engine = bench(draft_tokens=0, memory=None)
    run_alone(engine, generate("abc", max_tokens=12, prediction=answer))

    assert last(engine).predicted_tokens == len(answer) > 2
    assert last(engine).drafted_tokens == 0


@pytest.mark.parametrize("draft_tokens", [0, 4])
def test_prediction_of_an_answer_without_a_decoding_pass_is_counted(draft_tokens):
    answer = expected_text(generate("abc", max_tokens=1), 0)
    engine = bench(draft_tokens, memory=None)
    run_alone(engine, generate("abc", max_tokens=1, prediction=answer))

    assert last(engine).predicted_tokens == len(answer) == 1


def test_drafts_of_many_sequences_stay_within_the_pass():
    engine = bench(slots=4, batch_tokens=12)
    engine.submit(
        *(
            generate(PROMPT + letter, id=letter, max_tokens=50, ignore_eos=True)
            for letter in "abcdefgh"
        )
    )
    engine.run()

    assert engine.model.largest_pass <= 12
    for letter in "abcdefgh":
        command = generate(PROMPT + letter, max_tokens=50, ignore_eos=True)
        assert engine.text(letter) == run_alone(bench(draft_tokens=0), command)[0]["text"]


def test_recurrent_state_is_never_drafted_for():
    engine = bench(can_roll_back=False)
    run_alone(engine, generate(PROMPT, max_tokens=50, ignore_eos=True))

    assert last(engine).drafted_tokens == 0


def test_failed_truncation_of_a_draft_is_recomputed():
    engine = bench()
    engine.model.can_roll_back = False  # it was believed to be able to
    command = generate(PROMPT, max_tokens=60, sampling=Sampling(seed=3), ignore_eos=True)

    assert run_alone(engine, command) == run_alone(bench(draft_tokens=0), command)


def test_exhausted_cells_stop_drafting():
    engine = bench(slots=2, cells=PROMPT.__len__() + 61)
    command = generate(PROMPT, max_tokens=60, ignore_eos=True)

    assert run_alone(engine, command) == run_alone(bench(draft_tokens=0), command)


def test_cancelled_draft_leaves_consistent_cells():
    engine = bench()
    engine.submit(generate(PROMPT, id="a", max_tokens=100, ignore_eos=True))
    for _ in range(20):
        engine.generator.step(0)
    engine.generator.cancel(Address(1, "a"))
    command = generate(PROMPT, id="b", max_tokens=100, ignore_eos=True)

    assert run_alone(engine, command) == run_alone(bench(draft_tokens=0), command)


def test_request_that_fails_within_a_draft_fails_alone():
    engine = bench()
    nothing = {LETTERS.index(letter): -100.0 for letter in LETTERS[1:]}
    doomed = Sampling(temperature=0, logit_bias=nothing | dict.fromkeys(nothing, float("-inf")))
    engine.submit(generate(PROMPT, id="a", max_tokens=50, ignore_eos=True, sampling=doomed, n=2))
    other = generate(PROMPT, id="b", max_tokens=50, ignore_eos=True)

    assert run_alone(engine, other) == run_alone(bench(draft_tokens=0), other)
    assert isinstance(engine.outbox.events["a"][-1], Failed)


def test_passes_that_cost_by_the_token_get_no_drafts():
    engine = bench()
    engine.submit(generate(PROMPT, max_tokens=200, ignore_eos=True))
    while not engine.generator.is_idle:
        before = engine.generator.statistics.computed_tokens
        engine.generator.step(0)
        spent = engine.generator.statistics.computed_tokens - before
        engine.generator.statistics.busy_s += 0.01 * spent

    assert last(engine).drafted_tokens < 60  # each length was tried and given up


def test_accepted_drafts_of_a_step_are_one_delta():
    engine = bench()
    engine.submit(generate(PROMPT, max_tokens=100, ignore_eos=True))
    while not engine.generator.is_idle:
        before = len(engine.deltas("1"))
        engine.generator.step(0)
        assert len(engine.deltas("1")) <= before + 1

    assert max(len(delta.text) for delta in engine.deltas("1")) > 2


def test_speculation_does_not_change_logits():
    command = generate(PROMPT, max_tokens=60, sampling=Sampling(temperature=0, logprobs=3))
    speculative = run_alone(bench(), command)[0]["logprobs"]
    plain = run_alone(bench(draft_tokens=0), command)[0]["logprobs"]

    assert np.allclose([item.logprob for item in speculative], [item.logprob for item in plain])
    assert msgspec.msgpack.encode(speculative) == msgspec.msgpack.encode(plain)
