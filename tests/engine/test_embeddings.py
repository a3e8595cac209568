"""Embeddings with a real model."""

import asyncio
import resource
from pathlib import Path

import numpy as np
import pytest

from llm_backend.engine import CommandFailed, EngineClient
from llm_backend.engine.messages import Embedded, Failure, Generate, ModelKind
from tests.engine.conftest import config


def vectors(embedded: Embedded) -> np.ndarray:
    return np.frombuffer(embedded.vectors, "<f4").reshape(-1, embedded.embedding_size)


async def test_embeddings_are_unit_vectors_and_similar_texts_are_nearer(tiny_bert):
    async with EngineClient(config(tiny_bert)) as engine:
        info = await engine.ready()
        texts = ["the cat sat", "the dog ran", "the cat sat"]
        together = await engine.embed(texts)
        alone = vectors(await engine.embed(["the dog ran"]))

        found = vectors(together)
        assert info.kind is ModelKind.EMBEDDING
        assert together.prompt_tokens == 15
        assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert found[0] == pytest.approx(found[2], abs=1e-5)
        assert found[1] == pytest.approx(alone[0], abs=1e-4)
        assert float(found[0] @ found[1]) < 0.99


async def test_embedder_splits_many_inputs_over_passes(tiny_bert):
    async with EngineClient(config(tiny_bert)) as engine:
        await engine.ready()
        texts = [f"the {chr(97 + number % 26)} cat" * (1 + number % 7) for number in range(300)]
        found = vectors(await engine.embed(texts))

        assert found.shape == (300, 32)
        assert found[26 * 7] == pytest.approx(found[0], abs=1e-4)


async def test_embedder_refuses_invalid_inputs(tiny_bert):
    async with EngineClient(config(tiny_bert, context_tokens=4096)) as engine:
        assert (await engine.ready()).context_tokens == 512
        for inputs, failure in (
            (["cat " * 600], Failure.CONTEXT_LENGTH),
            ([[1, 99]], Failure.INVALID),
            ([], Failure.INVALID),
        ):
            with pytest.raises(CommandFailed) as caught:
                await engine.embed(inputs)
            assert caught.value.failure is failure
        with pytest.raises(CommandFailed, match="cannot generate"):
            await engine.generate(Generate(id="1", prompt="a"))
        with pytest.raises(CommandFailed, match="cannot rank"):
            await engine.rank("cat", ["dog"])


async def test_chat_model_of_kind_embedding_embeds(tiny_llama):
    async with EngineClient(config(tiny_llama, kind=ModelKind.EMBEDDING)) as engine:
        await engine.ready()
        found = vectors(await engine.embed(["the cat", "a hat", "the cat"]))

        assert found[0] == pytest.approx(found[2], abs=1e-5)
        assert np.linalg.norm(found[1]) == pytest.approx(1, abs=1e-5)


async def test_embedder_refuses_far_too_long_text_before_tokenizing_all_of_it(tiny_llama):
    async with EngineClient(config(tiny_llama, kind=ModelKind.EMBEDDING)) as engine:
        await engine.ready()
        async with asyncio.timeout(60):  # to tokenize it takes minutes
            with pytest.raises(CommandFailed) as caught:
                await engine.embed(["<tool_call>" * 300_000])

    assert caught.value.failure is Failure.CONTEXT_LENGTH


async def test_embedder_memory_is_constant_over_ten_thousand_texts(tiny_bert):
    async with EngineClient(config(tiny_bert)) as engine:
        await engine.ready()
        await embed_texts(engine, 2_000)
        warm = resident_bytes(engine)
        await embed_texts(engine, 10_000)

        assert resident_bytes(engine) <= 1.02 * warm


async def embed_texts(
    engine: EngineClient, count: int, *, requests: int = 8, inputs: int = 25
) -> None:
    """Embeds `count` texts of one to six words, several requests at a time."""
    texts = [f"the {chr(97 + number % 26)} cat" * (1 + number % 2) for number in range(inputs)]
    for _ in range(count // (requests * inputs)):
        await asyncio.gather(*(engine.embed(texts) for _ in range(requests)))


def resident_bytes(engine: EngineClient) -> int:
    pages = int(Path(f"/proc/{engine.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
