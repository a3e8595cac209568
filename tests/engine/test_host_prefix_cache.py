"""The host prefix cache, with real models."""

import itertools
from pathlib import Path

import pytest

from llm_backend.engine import EngineClient
from llm_backend.engine.messages import Generate, Sampling
from tests.engine.conftest import answer, config
from tests.engine.gguf_models import write_mamba, write_windowed

NUMBERS = itertools.count()
CHATS = [[first, *(5 + number % 200 for number in range(120))] for first in (7, 8, 9)]


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
    async with EngineClient(config(file, slots=1, prefix_ram_bytes=0)) as plain:
        expected, computed_again = await take_turns(plain)
    async with EngineClient(config(file, slots=1)) as engine:
        texts, cached = await take_turns(engine)
        status = await engine.status()

    assert texts == expected
    assert computed_again < 20  # but for tokens that all chats begin with
    assert status.prefix_ram_restores == 6
    assert cached >= 6 * len(CHATS[0])
    assert status.prefix_ram_states == 2


async def test_model_with_a_sliding_window_saves_no_states(tmp_path):
    async with EngineClient(config(write_windowed(tmp_path / "model.gguf"), slots=1)) as engine:
        await take_turns(engine)

        assert (await engine.status()).prefix_ram_saves == 0
