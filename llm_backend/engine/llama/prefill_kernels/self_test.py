"""Test of the prefill kernels on the processor they run on, against ggml's own."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.prefill_kernels.ggml_graphs import Graph

_TOKENS, _ROWS, _COLUMNS = 64, 48, 64  # of the product
_HEADS, _SHARED_HEADS, _HEAD, _CELLS = 4, 2, 32, 96  # of the attention
_TOLERANCE = 0.03  # norm of the difference, of the norm; kernels round numbers to 8 bits

Level = TypeVar("Level", bound=int)


def passes_self_test(allow: Callable[[Level], None], levels: Sequence[Level]) -> bool:
    """True if a product and an attention operation have ggml's own results with each of `levels`;
    `allow` sets the level. The level is 0 afterwards."""
    rng = np.random.default_rng(0)
    return all(
        _is_equal(compute, allow, level)
        for compute in (_product(rng), _attention(rng))
        for level in levels
    )


def _is_equal(
    compute: Callable[[Graph], NDArray[np.float32]], allow: Callable[[Level], None], level: Level
) -> bool:
    results = []
    for one in (level, type(level)(0)):
        allow(one)
        with closing(Graph()) as graph:
            graph.set_threads(1)
            results.append(compute(graph))
    difference = np.linalg.norm(results[0] - results[1])
    return bool(difference <= _TOLERANCE * np.linalg.norm(results[1]))


def _product(rng: np.random.Generator) -> Callable[[Graph], NDArray[np.float32]]:
    weights = rng.standard_normal((_ROWS, _COLUMNS), dtype=np.float32)
    values = rng.standard_normal((_TOKENS, _COLUMNS), dtype=np.float32)

    def compute(graph: Graph) -> NDArray[np.float32]:
        left = graph.tensor(weights, native.GGML_TYPE_Q8_0)
        return graph.compute(graph.product(left, graph.tensor(values)), (_TOKENS, _ROWS))

    return compute


def _attention(rng: np.random.Generator) -> Callable[[Graph], NDArray[np.float32]]:
    queries = rng.standard_normal((_HEADS, _TOKENS, _HEAD), dtype=np.float32)
    keys, values = rng.standard_normal((2, _SHARED_HEADS, _CELLS, _HEAD), dtype=np.float32)
    ahead = np.arange(_CELLS) > np.arange(_TOKENS)[:, None] + _CELLS - _TOKENS
    mask = np.where(ahead, np.float32(-np.inf), np.float32(0))

    def compute(graph: Graph) -> NDArray[np.float32]:
        half = native.GGML_TYPE_F16
        kept = (graph.tensor(keys, half), graph.tensor(values, half), graph.tensor(mask, half))
        result = graph.attention((graph.tensor(queries), *kept), scale=_HEAD**-0.5)
        return graph.compute(result, (_TOKENS, _HEADS, _HEAD))

    return compute
