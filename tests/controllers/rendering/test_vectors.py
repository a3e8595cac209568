"""Vectors as numbers: exact digits, and encoding that does not block other requests."""

import asyncio
import time

import numpy as np
import orjson
import pytest

from llm_backend.controllers.rendering.vectors import NUMBERS_PER_STEP, as_numbers, shorten


def unit_vectors(rows: int, size: int) -> np.ndarray:
    vectors = np.random.default_rng(1).standard_normal((rows, size), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def test_numbers_are_those_of_the_vectors():
    vectors = unit_vectors(5, 384)
    written = await as_numbers(vectors.tobytes(), 384)

    assert np.array_equal(np.array(orjson.loads(orjson.dumps(written)), dtype="<f4"), vectors)


def test_shortened_vectors_are_normalized():
    vectors = unit_vectors(3, 384)
    cut = np.frombuffer(shorten(vectors.tobytes(), 384, 64), "<f4").reshape(3, 64)

    assert np.linalg.norm(cut, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert np.sum(cut[0] * vectors[0, :64]) == pytest.approx(np.linalg.norm(vectors[0, :64]))


def test_a_vector_of_nothing_stays_one():
    assert shorten(bytes(4 * 8), 8, 4) == bytes(4 * 4)


async def test_others_have_their_turns_while_many_vectors_are_written():
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    rows = 2048
    vectors = unit_vectors(rows, 384).tobytes()
    task = asyncio.create_task(others())
    started_at = time.process_time()
    await as_numbers(vectors, 384)
    used_s = time.process_time() - started_at
    task.cancel()

    assert turns >= rows * 384 // NUMBERS_PER_STEP
    assert used_s < 2
