"""The host prefix cache, with real models."""

import itertools
import sys
from pathlib import Path

import pytest

from llm_backend.engine import EngineClient, EngineDown
from llm_backend.engine.messages import Delta, Generate, Sampling
from tests.engine.conftest import answer, config
from tests.engine.gguf_models import write_delta_net, write_llama, write_mamba, write_windowed

NUMBERS = itertools.count()
CHATS = [[first, *(5 + number % 200 for number in range(120))] for first in (7, 8, 9)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def take_turns(engine: EngineClient, turns: int = 3) -> tuple[list[str], int]:
    """Answers of chats that take turns, and the number of cached prompt tokens in all. Of one
    generated token there are no cells, so that a recurrent state ends with the prompt."""
    await engine.ready()
    chats, texts, cached = [list(chat) for chat in CHATS], [], 0
    for _ in range(turns):
        for chat in chats:
            request = Generate(
                id=f"m{next(NUMBERS)}",
                prompt=list(chat),
                max_tokens=1,
                sampling=Sampling(temperature=0),
                ignore_eos=True,
            )
            deltas = await answer(engine, request)
            texts.append("".join(delta.text for delta in deltas))
            chat += [11, 12, 13]
            cached += deltas[-1].cached_tokens
    return texts, cached


@pytest.mark.parametrize("write", [None, write_mamba], ids=["attention", "recurrent"])
async def test_chats_in_turns_restore_their_states_and_answer_the_same(write, tiny_llama, tmp_path):
    file: Path = write(tmp_path / "model.gguf") if write else tiny_llama
    async with EngineClient(config(file, slots=1, prefix_ram_limit_bytes=0)) as plain:
        expected, computed_again = await take_turns(plain)
    async with EngineClient(config(file, slots=1)) as engine:
        texts, cached = await take_turns(engine)
        status = await engine.status()

    assert texts == expected
    assert computed_again < 20  # but for tokens that all chats begin with
    assert status.prefix_ram_restores == 6
    assert cached >= 6 * len(CHATS[0])
    assert status.prefix_ram_states == 2


async def test_worker_short_of_memory_reads_no_state(tiny_llama):
    command = (sys.executable, "-m", "tests.engine.crashing_worker", "short-of-memory")
    options = {"slots": 1, "prefix_ram_limit_bytes": 1 << 30, "command": command}
    async with EngineClient(config(tiny_llama, **options)) as engine:
        await take_turns(engine)
        status = await engine.status()

    assert (status.deaths, status.prefix_ram_saves) == (0, 0)


async def test_model_with_a_sliding_window_saves_no_states(tmp_path):
    async with EngineClient(config(write_windowed(tmp_path / "model.gguf"), slots=1)) as engine:
        await take_turns(engine)

        assert (await engine.status()).prefix_ram_saves == 0


def write_with_recurrent_head(path: Path) -> Path:
    """A model with a recurrent state, and a draft head that predicts as it does."""
    return write_delta_net(path, copies=True)


def turn(chat: list[int], max_tokens: int) -> Generate:
    return Generate(
        id=f"m{next(NUMBERS)}",
        prompt=list(chat),
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
        ignore_eos=True,
    )


@pytest.mark.parametrize("write", [write_llama, write_mamba, write_with_recurrent_head])
@pytest.mark.parametrize("how", ["saves", "restores"])
async def test_worker_that_dies_with_a_state_answers_the_same_afterwards(how, write, tmp_path):
    file: Path = write(tmp_path / "model.gguf")
    begun = CHATS[:1] if how == "saves" else CHATS[:2]
    deadly = CHATS[1] if how == "saves" else [*CHATS[0], 11, 12, 13]
    async with EngineClient(config(file, slots=1, prefix_ram_limit_bytes=0)) as plain:
        await plain.ready()
        expected = text(await answer(plain, turn(deadly, 40)))

    command = (sys.executable, "-m", "tests.engine.crashing_worker", how)
    async with EngineClient(config(file, slots=1, command=command)) as engine:
        await engine.ready()
        for chat in begun:
            await answer(engine, turn(chat, 1))
        with pytest.raises(EngineDown):
            await answer(engine, turn(deadly, 40))
        await engine.ready()

        assert text(await answer(engine, turn(deadly, 40))) == expected
        assert (await engine.status()).deaths == 1
