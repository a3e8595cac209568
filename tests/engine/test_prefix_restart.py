"""Prefixes in files, with a real model: in this process, and over restarts of the engine."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine import EngineClient
from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama import LlamaLog, LlamaModel
from llm_backend.engine.messages import Delta, Generate, PrefixLimits, Sampling
from tests.engine.conftest import answer, config
from tests.engine.fakes import load_command
from tests.engine.gguf_models import write_llama, write_mamba, write_windowed

NUMBERS = itertools.count()
SYSTEM = "the cat in the hat sat on the mat and the rat " * 6
Opened = Callable[..., LlamaModel]


@pytest.fixture
def opened(tmp_path) -> Iterator[Opened]:
    """A tiny model in this process, gone after the test."""
    log, models = LlamaLog(), []

    def opened(file: Path, **fields: object) -> LlamaModel:
        models.append(LlamaModel(load_command(model_path=file, batch_tokens=512, **fields), log))
        return models[-1]

    yield opened
    for model in models:
        native.llama_free(model.context)
        native.llama_model_free(model._model)


def read(model: LlamaModel, slot: int, tokens: list[int]) -> None:
    model._decode([BatchChunk(slot=slot, position=0, tokens=tokens, outputs=[])])


def logits(model: LlamaModel, slot: int, position: int) -> np.ndarray:
    """Logits after one more token: [vocab] float32."""
    row = model._decode([BatchChunk(slot=slot, position=position, tokens=[7], outputs=[0])])[
        0
    ].copy()
    model.truncate(slot, position)
    return row


TOKENS = [5 + number % 200 for number in range(100)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"flash_attention": True, "cache_type": "f16"},
        {"kv_unified": True},
    ],
    ids=["plain", "fused", "unified"],
)
def test_state_restored_into_another_instance_computes_the_same(opened, tiny_llama, fields):
    first, second = opened(tiny_llama, **fields), opened(tiny_llama, **fields)
    read(first, 1, TOKENS)
    read(second, 0, [9] * 20)  # overwrites its cells
    state = first.state(1)

    assert second.restore(0, state, len(TOKENS))
    assert np.array_equal(logits(second, 0, 100), logits(first, 1, 100))
    assert second.truncate(0, 60)
    assert first.truncate(1, 60)
    assert np.array_equal(logits(second, 0, 60), logits(first, 1, 60))


def test_state_with_multidimensional_positions_is_restored(opened, tmp_path):
    file = write_llama(tmp_path / "places.gguf", has_places=True)
    first, second = opened(file), opened(file)
    read(first, 0, TOKENS)

    assert second.restore(0, first.state(0), len(TOKENS))
    assert np.array_equal(logits(second, 0, 100), logits(first, 0, 100))


def test_state_of_a_sliding_window_model_is_not_saved(opened, tmp_path):
    file = write_windowed(tmp_path / "windowed.gguf")
    first, second = opened(file), opened(file)
    read(first, 0, TOKENS)

    assert second.restore(0, first.state(0), len(TOKENS))
    assert first.truncate(0, 60)
    assert not second.truncate(0, 60)  # the state lacks the cells before the window
    assert not first.can_save_states


def test_invalid_state_leaves_an_empty_slot(opened, tiny_llama):
    model = opened(tiny_llama)
    read(model, 0, TOKENS)
    state = model.state(0)
    read(model, 1, [9] * 20)

    assert not model.restore(1, state[:100], len(TOKENS))
    assert not model.restore(1, state, len(TOKENS) - 1)
    assert model.end(1) == 0


def request(prompt: str | list[int], max_tokens: int = 24) -> Generate:
    return Generate(
        id=f"p{next(NUMBERS)}",
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
        ignore_eos=True,
    )


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_restarted_engine_restores_prefix_files(tiny_llama, tmp_path):
    limits = PrefixLimits(folder=str(tmp_path / "kept"), tokens=64)
    prompts = [SYSTEM + "who?", SYSTEM + "where did it go?"]
    async with EngineClient(config(tiny_llama)) as plain:
        await plain.ready()
        expected = [text(await answer(plain, request(prompt))) for prompt in prompts]
    async with EngineClient(config(tiny_llama, prefixes=limits, stop_timeout_s=30)) as first:
        await first.ready()
        await answer(first, request(prompts[0]))
    async with EngineClient(config(tiny_llama, prefixes=limits, stop_timeout_s=30)) as second:
        await second.ready()
        before = await second.status()
        answers = [await answer(second, request(prompt)) for prompt in prompts]
        after = await second.status()

    assert [text(deltas) for deltas in answers] == expected
    assert answers[0][-1].cached_tokens > 64
    assert (before.prefix_files, before.prefix_reads) == (1, 0)
    assert (after.prefix_files, after.prefix_reads) == (1, 1)
    assert after.prefix_read_tokens > 64


async def test_recurrent_state_is_restored_as_a_whole(tmp_path):
    file = write_mamba(tmp_path / "mamba.gguf")
    limits = PrefixLimits(folder=str(tmp_path / "kept"), tokens=64)
    longer, other = [*TOKENS, 8, 9], [*TOKENS[:90], 8, 9]
    async with EngineClient(config(file, prefixes=limits, stop_timeout_s=30)) as first:
        await first.ready()
        expected = [text(await answer(first, request(prompt))) for prompt in (longer, other)]
        await answer(first, request(TOKENS, max_tokens=1))
    async with EngineClient(config(file, prefixes=limits)) as second:
        await second.ready()
        answers = [await answer(second, request(prompt)) for prompt in (longer, other)]

    assert [text(deltas) for deltas in answers] == expected
    assert [deltas[-1].cached_tokens for deltas in answers] == [len(TOKENS), 0]
