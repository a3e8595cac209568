"""Answers that go on beyond the context, with real models."""

import itertools

import pytest

from llm_backend.engine import EngineClient
from llm_backend.engine.llama import LlamaLog, LlamaModel
from llm_backend.engine.messages import Delta, FinishReason, Generate, Sampling
from tests.engine.conftest import answer, config
from tests.engine.fakes import generate, load_command
from tests.engine.gguf_models import write_mamba
from tests.engine.test_generator import Bench

CONTEXT = 64
NUMBERS = itertools.count()
PROMPT = [7, *range(40, 60)]


async def continuation(engine: EngineClient, prompt: list[int], max_tokens: int | None, **fields):
    """The tokens of a greedy answer, and its last delta."""
    request = Generate(
        id=f"s{next(NUMBERS)}",
        prompt=list(prompt),
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0, logprobs=0),
        ignore_eos=True,
        **fields,
    )
    deltas: list[Delta] = await answer(engine, request)
    return [one.token for delta in deltas for one in delta.logprobs], deltas[-1]


async def expected_tokens(engine: EngineClient, count: int) -> list[int]:
    """Tokens of an engine that gets half of the context as a new prompt each time it is full."""
    tokens, generated = list(PROMPT), []
    while len(generated) < count:
        room = CONTEXT - len(tokens)
        newest, _ = await continuation(engine, tokens, min(room, count - len(generated)))
        generated += newest
        tokens = [*tokens, *newest][-(CONTEXT // 2) :]
    return generated


@pytest.mark.parametrize("write", [None, write_mamba], ids=["attention", "recurrent"])
async def test_answer_goes_on_by_the_newer_half_of_a_full_context(write, tiny_llama, tmp_path):
    file = write(tmp_path / "model.gguf") if write else tiny_llama
    settings = {"context_tokens": CONTEXT, "slots": 2, "prefix_ram_limit_bytes": 0}
    async with (
        EngineClient(config(file, **settings, context_shift_tokens=1000)) as engine,
        EngineClient(config(file, **settings)) as plain,
    ):
        await engine.ready()
        await plain.ready()
        tokens, last = await continuation(engine, PROMPT, 150)
        again, _ = await continuation(engine, PROMPT, 150)  # the slots hold other tokens now
        ended, cut = await continuation(plain, PROMPT, 150)
        status = await engine.status()

        assert tokens == again == await expected_tokens(plain, 150)
    assert (last.completion_tokens, last.finish_reason) == (150, FinishReason.LENGTH)
    assert (ended, cut.finish_reason) == (tokens[: CONTEXT - len(PROMPT)], FinishReason.LENGTH)
    assert status.context_shifts == 2 * 4
    assert status.running == 0


@pytest.mark.parametrize("write", [None, write_mamba], ids=["attention", "recurrent"])
def test_answer_cancelled_during_a_shift_leaves_its_slot_to_the_next(write, tiny_llama, tmp_path):
    """The remaining half is computed in several passes, and the answer is cancelled after one."""
    file = write(tmp_path / "model.gguf") if write else tiny_llama
    bounds = {"slots": 1, "context_tokens": CONTEXT, "batch_tokens": 8}

    def bench() -> Bench:
        model = LlamaModel(load_command(model_path=file, **bounds), LlamaLog())
        model.verify()
        return Bench(model, context_shift_tokens=1000, **bounds)

    shifting = bench()
    shifting.submit(generate(list(PROMPT), max_tokens=150, ignore_eos=True))
    (address,) = shifting.generator._requests
    for _ in range(CONTEXT + len(PROMPT)):
        shifting.generator.step(0)
        if shifting.generator.statistics.context_shifts:
            break
    shifting.generator.step(0)
    (sequence,) = shifting.generator._scheduler.running
    assert 1 < sequence.uncomputed_tokens < CONTEXT // 2
    shifting.generator.cancel(address)

    assert shifting.generator.is_idle
    following = generate([7, *range(60, 80)], id="next", max_tokens=70, ignore_eos=True)
    shifting.answer(following)
    alone = bench()
    alone.answer(following)
    assert shifting.text("next") == alone.text("next")
    assert len(shifting.deltas("1")) < 150


async def test_answer_without_a_limit_or_beyond_the_bound_ends(tiny_llama):
    settings = {"context_tokens": CONTEXT, "context_shift_tokens": 40}
    async with EngineClient(config(tiny_llama, **settings)) as engine:
        await engine.ready()
        _, unlimited = await continuation(engine, PROMPT, None)
        _, longest = await continuation(engine, PROMPT, 10**9)
        _, several = await continuation(engine, PROMPT, 70, n=3)

    assert unlimited.completion_tokens == CONTEXT - len(PROMPT)
    assert longest.completion_tokens == CONTEXT + 40 - len(PROMPT)
    assert several.completion_tokens == 70


async def test_grammar_and_drafts_hold_beyond_the_context(tiny_llama):
    async with EngineClient(
        config(tiny_llama, context_tokens=CONTEXT, context_shift_tokens=1000, draft_tokens=8)
    ) as engine:
        await engine.ready()
        request = Generate(
            id="g",
            prompt=list(PROMPT),
            max_tokens=400,
            grammar='start: "{" ("ab" | "cd"){90} "}"',
            sampling=Sampling(temperature=0),
        )
        deltas = await answer(engine, request)

    text = "".join(delta.text for delta in deltas)
    assert len(text) == 182
    assert text == "{" + text[1:-1] + "}"
    assert {text[at : at + 2] for at in range(1, 181, 2)} <= {"ab", "cd"}
    assert deltas[-1].finish_reason is FinishReason.STOP
