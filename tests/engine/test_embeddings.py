"""Embeddings with a real model."""

import numpy as np
import pytest

from llm_backend.engine import Engine, EngineRefused
from llm_backend.engine.messages import Embedded, Failure, Generate
from tests.engine.conftest import config


def vectors(embedded: Embedded) -> np.ndarray:
    return np.frombuffer(embedded.vectors, "<f4").reshape(-1, embedded.embedding_size)


async def test_texts_become_unit_vectors_that_know_alike_from_other(tiny_bert):
    async with Engine(config(tiny_bert)) as engine:
        info = await engine.ready()
        texts = ["the cat sat", "the dog ran", "the cat sat"]
        together = await engine.embed(texts)
        alone = vectors(await engine.embed(["the dog ran"]))

        found = vectors(together)
        assert info.is_embedding_model
        assert together.prompt_tokens == 15
        assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert found[0] == pytest.approx(found[2], abs=1e-5)
        assert found[1] == pytest.approx(alone[0], abs=1e-4)
        assert float(found[0] @ found[1]) < 0.99


async def test_many_inputs_take_several_passes(tiny_bert):
    async with Engine(config(tiny_bert)) as engine:
        await engine.ready()
        texts = [f"the {chr(97 + number % 26)} cat" * (1 + number % 7) for number in range(300)]
        found = vectors(await engine.embed(texts))

        assert found.shape == (300, 32)
        assert found[26 * 7] == pytest.approx(found[0], abs=1e-4)


async def test_what_cannot_be_embedded_is_refused(tiny_bert):
    async with Engine(config(tiny_bert, context_tokens=4096)) as engine:
        assert (await engine.ready()).context_tokens == 512
        for inputs, failure in (
            (["cat " * 600], Failure.CONTEXT_LENGTH),
            ([[1, 99]], Failure.INVALID),
            ([], Failure.INVALID),
        ):
            with pytest.raises(EngineRefused) as caught:
                await engine.embed(inputs)
            assert caught.value.failure is failure
        with pytest.raises(EngineRefused, match="cannot generate"):
            await engine.generate(Generate(id="1", prompt="a"))


async def test_a_model_that_generates_can_be_made_to_embed(tiny_llama):
    async with Engine(config(tiny_llama, is_embedding_model=True)) as engine:
        await engine.ready()
        found = vectors(await engine.embed(["the cat", "a hat", "the cat"]))

        assert found[0] == pytest.approx(found[2], abs=1e-5)
        assert np.linalg.norm(found[1]) == pytest.approx(1, abs=1e-5)
