"""A real draft model beside a real model: the same answers, and what cannot be a draft model."""

import asyncio
import itertools
import sys
from pathlib import Path

import pytest

from llm_backend.engine import EngineClient, EngineStartError
from llm_backend.engine.llama import LlamaLog, LlamaModel, huge_pages, load_draft_model
from llm_backend.engine.messages import Generate, Sampling
from llm_backend.engine.model import LoadError
from llm_backend.engine.speculation.drafter import Drafter
from tests.engine.conftest import answer, config
from tests.engine.fakes import load_command
from tests.engine.gguf_models import (
    MERGED,
    write_eagle,
    write_llama,
    write_windowed,
    write_with_head,
)
from tests.engine.test_generator import Bench

NUMBERS = itertools.count()
SAMPLINGS = (Sampling(temperature=0), Sampling(seed=4, temperature=0.4, top_p=0.9))
PROMPTS = ("the cat in the hat", "one two three", "an other thing that is said", "the")


def request(prompt: str = PROMPTS[0], **fields: object) -> Generate:
    defaults = {"max_tokens": 80, "sampling": Sampling(temperature=0), "ignore_eos": True}
    return Generate(id=f"d{next(NUMBERS)}", prompt=prompt, **{**defaults, **fields})


def drafted(path: Path, draft: Path | None, **bounds: int) -> Bench:
    """An engine in this process whose passes seem to cost nothing: it drafts whenever it can."""
    log = LlamaLog()
    command = load_command(
        model_path=path,
        draft_model_path=draft,
        batch_tokens=64,
        draft_tokens=4,
        logit_rows=16,
        **bounds,
    )
    model = LlamaModel(command, log)
    drafter = None
    if draft is not None:
        second = load_draft_model(model, command, log)
        drafter = Drafter(second, model.vocabulary.size, clock=lambda: 0.0)
    return Bench(model, drafter, draft_tokens=4, logit_rows=16, **bounds)


def answers_of(bench: Bench, *commands: Generate) -> list[str]:
    bench.submit(*commands)
    bench.run()
    return [bench.text(command.id) for command in commands]


@pytest.mark.skipif(sys.platform != "linux", reason="only there weights are copied")
def test_draft_model_weights_count_towards_memory_once(tmp_path, tiny_llama, monkeypatch):
    loaded, draft = [], write_llama(tmp_path / "draft.gguf", seed=1)
    monkeypatch.setattr(
        huge_pages, "fit_in_memory", lambda files, free: loaded.append(files) or True
    )
    monkeypatch.setattr(huge_pages, "_gives_huge_pages", lambda: True)
    drafted(tiny_llama, draft)

    assert loaded == [[tiny_llama, draft], [draft]]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_model_that_drafts_for_itself_is_always_accepted(tiny_llama, sampling):
    plain, twin = drafted(tiny_llama, None), drafted(tiny_llama, tiny_llama)
    expected = answers_of(plain, *(request(prompt, sampling=sampling) for prompt in PROMPTS))
    commands = [request(prompt, sampling=sampling) for prompt in PROMPTS]

    assert answers_of(twin, *commands) == expected
    ends = [twin.deltas(command.id)[-1] for command in commands]
    right = sum(end.accepted_tokens for end in ends) / sum(end.drafted_tokens for end in ends)
    assert right > (0.85 if sampling.temperature == 0 else 0.2)


def test_model_that_drafts_for_itself_is_accepted_after_a_context_shift(tiny_llama):
    bounds = {"context_tokens": 96, "context_shift_tokens": 400}
    bench = drafted(tiny_llama, tiny_llama, slots=1, **bounds)
    command = request(max_tokens=300)
    answers_of(bench, command)

    deltas = bench.deltas(command.id)
    shifted, end = next(one for one in deltas if one.completion_tokens > 100), deltas[-1]
    accepted = end.accepted_tokens - shifted.accepted_tokens
    assert bench.generator.statistics.context_shifts > 1
    assert accepted / (end.drafted_tokens - shifted.drafted_tokens) > 0.85


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_random_draft_model_changes_no_answer(tmp_path, tiny_llama, sampling):
    stranger = write_llama(tmp_path / "stranger.gguf", seed=7, layers=1, size=32)
    commands = [request(prompt, sampling=sampling) for prompt in PROMPTS]
    plain, bench = drafted(tiny_llama, None), drafted(tiny_llama, stranger)

    assert answers_of(bench, *commands) == answers_of(plain, *commands)
    assert bench.deltas(commands[0].id)[-1].drafted_tokens > 0


@pytest.mark.asyncio
async def test_engine_with_a_draft_model_gives_the_same_answers(tmp_path, tiny_llama):
    draft = write_llama(tmp_path / "draft.gguf", seed=7, layers=1)
    async with (
        EngineClient(config(tiny_llama, draft_model_path=draft)) as ahead,
        EngineClient(config(tiny_llama, speculation=False)) as plain,
    ):
        await asyncio.gather(ahead.ready(), plain.ready())
        drafted, expected = [
            await asyncio.gather(*(answer(engine, request(prompt)) for prompt in PROMPTS))
            for engine in (ahead, plain)
        ]

    assert ["".join(delta.text for delta in deltas) for deltas in drafted] == [
        "".join(delta.text for delta in deltas) for deltas in expected
    ]


@pytest.mark.asyncio
async def test_unsuitable_draft_model_is_refused_at_the_start(
    tmp_path, tiny_llama, tiny_spm, tiny_bert
):
    infill = write_llama(tmp_path / "infill.gguf", can_infill=True)
    eagle = write_eagle(tmp_path / "eagle.gguf", layers=(0, 1, 2))
    wide = write_eagle(tmp_path / "wide.gguf", layers=(0, 1, 1), target_size=128)
    windowed = write_windowed(tmp_path / "windowed.gguf")
    flash = write_with_head(tmp_path / "flash.gguf", architecture="dflash")
    for model, draft, reason in (
        (tiny_llama, tiny_spm, "vocabulary differs: the tokens are of another kind"),
        (tiny_llama, tiny_bert, "generates nothing, so it cannot draft"),
        (tiny_bert, tiny_llama, "generates nothing, so .* cannot draft for it"),
        (tiny_llama, eagle, r"drafts from the layers \[0, 1, 2\], but the model has 2 layers"),
        (tiny_llama, wide, "another width than 64"),
        (windowed, eagle, "does not give the inputs of the layers of cohere2"),
        (tiny_llama, flash, "drafts of the architecture dflash need states of its layers"),
        (tiny_llama, tmp_path / "missing.gguf", "No such file"),
    ):
        async with EngineClient(config(model, draft_model_path=draft)) as engine:
            with pytest.raises(EngineStartError, match=reason):
                await engine.ready()
    async with EngineClient(config(tiny_llama, draft_model_path=infill)) as engine:
        assert await engine.ready()  # three tokens more at the end


def test_vocabulary_difference_names_the_token(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setattr("tests.engine.gguf_models.MERGED", [*MERGED[:-1], "ou"])
    other = write_llama(tmp_path / "other.gguf")

    with pytest.raises(LoadError, match="token 268 is 'ou', not 'es'"):
        drafted(tiny_llama, other)


def test_draft_model_needs_speculation(tiny_llama):
    with pytest.raises(ValueError, match="needs speculation"):
        config(tiny_llama, draft_model_path=tiny_llama, speculation=False)
