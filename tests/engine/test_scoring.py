"""Logprobs of labels by the real engine, against those of generated and echoed tokens."""

import asyncio
import itertools

import pytest

from llm_backend.engine import CommandFailed, EngineClient
from llm_backend.engine.messages import (
    Failure,
    Generate,
    LabelsScored,
    Priority,
    Question,
    Sampling,
    ScoreLabels,
)
from tests.engine.conftest import answer, config
from tests.engine.gguf_models import write_mamba

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = itertools.count()
PROMPT = "the quick brown fox jumps over the lazy dog and then some more of the same"


def score(*questions: Question, prompt: str = PROMPT, **fields: object) -> ScoreLabels:
    return ScoreLabels(id=f"s{next(NAMES)}", prompt=prompt, questions=list(questions), **fields)


async def scored(engine: EngineClient, command: ScoreLabels) -> LabelsScored:
    async with await engine.score_labels(command) as scoring:
        return await scoring.answer()


async def echoed(engine: EngineClient, text: str, label: str) -> float:
    """The logprob of a label behind a text, by the prompt logprobs of an echo."""
    tokens, known = await engine.tokenize(text + label), await engine.tokenize(text)
    assert tokens[: len(known)] == known
    request = Generate(
        id=f"e{next(NAMES)}",
        prompt=tokens,
        max_tokens=0,
        echo=True,
        sampling=Sampling(logprobs=0),
    )
    (delta,) = await answer(engine, request)
    return sum(one.logprob for one in delta.logprobs[len(known) :])


async def test_logprobs_of_labels_are_those_of_the_echoed_text(engine):
    questions = [
        Question(text=" is it so:", labels=[" yes", " no", " perhaps not", " perhaps so"]),
        Question(text=" which one:", labels=[" a", " b"]),
    ]

    scores = await scored(engine, score(*questions))

    for question, logprobs in zip(questions, scores.logprobs, strict=True):
        whole = [await echoed(engine, PROMPT + question.text, one) for one in question.labels]
        differences = [one - logprobs[0] for one in logprobs]
        assert differences == pytest.approx([one - whole[0] for one in whole], abs=1e-4)


async def test_questions_share_the_prompt_and_count_their_own_tokens(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        questions = [Question(text=f" number {n}:", labels=[" a", " b"]) for n in range(12)]

        before = await engine.status()
        async with await engine.score_labels(score(*questions)) as scoring:
            scores = await scoring.answer()
        after = await engine.status()

        own = scoring.slot_assigned.prompt_tokens
        shared = len(await engine.tokenize(PROMPT))
        each = [len(await engine.tokenize(question.text)) for question in questions]
        assert own == shared + sum(each)
        assert shared < after.computed_tokens - before.computed_tokens <= own
        assert scores.cached_tokens == 0
        again = await scored(engine, score(questions[0]))
        assert again.cached_tokens == shared


async def test_questions_share_the_state_of_a_recurrent_model(tmp_path):
    questions = [Question(text=f" number {n}:", labels=["a", "b"]) for n in range(6)]
    async with EngineClient(config(write_mamba(tmp_path / "mamba.gguf"))) as engine:
        await engine.ready()
        async with await engine.score_labels(score(*questions)) as scoring:
            scores = await scoring.answer()
        computed = (await engine.status()).computed_tokens
        assert computed == scoring.slot_assigned.prompt_tokens

        for question, logprobs in zip(questions, scores.logprobs, strict=True):
            whole = [await echoed(engine, PROMPT + question.text, one) for one in ("a", "b")]
            assert logprobs[1] - logprobs[0] == pytest.approx(whole[1] - whole[0], abs=1e-4)


async def test_questions_share_passes_where_slots_share_their_cells(engine, tiny_llama):
    questions = [Question(text=f" number {n}:", labels=[" a", " b b"]) for n in range(8)]
    separate = await scored(engine, score(*questions))
    async with EngineClient(config(tiny_llama, kv_unified=True)) as unified:
        await unified.ready()
        before = await unified.status()
        together = await scored(unified, score(*questions))
        after = await unified.status()

    assert after.passes - before.passes <= 4  # with four slots
    for one, other in zip(separate.logprobs, together.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


async def test_scores_do_not_depend_on_their_neighbours(engine):
    questions = [Question(text=f" number {n}:", labels=[" a", " b b", " c"]) for n in range(9)]

    together, *alone = await asyncio.gather(
        scored(engine, score(*questions)), *(scored(engine, score(one)) for one in questions)
    )

    for one, logprobs in zip(alone, together.logprobs, strict=True):
        assert one.logprobs[0] == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (score(), "questions"),
        (score(Question(text=" so:", labels=[])), "questions"),
        (score(Question(text=" so:", labels=["a", "a"])), "questions[0].labels"),
        (score(Question(text=" so:", labels=["a", "b " * 70])), "questions[0].labels"),
        (score(Question(text=" so:", labels=["a", "7" * 16_000])), "questions[0].labels"),
        (score(Question(text=" so:", labels=["a", ""])), "questions[0].labels"),
        (score(Question(text=" so:", labels=["a", "a b"])), "questions[0].labels"),
        (score(Question(text="", labels=["a", "b"])), "questions[0]"),
        (
            score(Question(text=" so:", labels=["a"]), Question(text="a b " * 600, labels=["a"])),
            "questions[1]",
        ),
        (score(Question(text=" so:", labels=["a"]), prompt="a b " * 600), "prompt"),
        (
            score(*(Question(text=" so:", labels=[f" {n}" for n in range(101)]),) * 100),
            "questions",
        ),
    ],
)
async def test_scores_that_cannot_be_given_are_refused_by_field(engine, command, field):
    with pytest.raises(CommandFailed) as refused:
        await scored(engine, command)

    assert refused.value.field == field
    assert refused.value.failure in (Failure.INVALID, Failure.CONTEXT_LENGTH)


@pytest.mark.parametrize("labels", [["a", ""], ["a", "a b"]])
async def test_a_label_that_begins_another_is_refused_in_a_whole_sentence(engine, labels):
    with pytest.raises(CommandFailed, match=r"empty, .* begin with those of another\.$"):
        await scored(engine, score(Question(text=" so:", labels=labels)))


async def test_a_cancelled_score_leaves_the_engine_to_others(engine):
    questions = [Question(text=f" {n} so:", labels=[" a", " b"]) for n in range(200)]
    batch = score(*questions, priority=Priority.BATCH)
    scoring = asyncio.create_task(scored(engine, batch))
    before = await engine.status()
    while (await engine.status()).passes < before.passes + 2:  # each answer takes a step
        pass

    scoring.cancel()

    with pytest.raises(asyncio.CancelledError):
        await scoring
    assert await answer(engine, Generate(id="next", prompt="a", max_tokens=2))
    status = await engine.status()
    assert (status.running, status.waiting) == (0, 0)


async def test_an_embedding_model_decides_nothing(tiny_bert):
    async with EngineClient(config(tiny_bert)) as engine:
        await engine.ready()
        with pytest.raises(CommandFailed) as refused:
            await scored(engine, score(Question(text=" so:", labels=["a", "b"])))

    assert refused.value.failure is Failure.UNSUPPORTED
