"""The compiled kernels beside ggml's own, on the operations and models that they compute."""

import asyncio
import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import llama_cpp as native
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

import hatch_build
from llm_backend.builtin import BUILTIN_PATH
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.llama.prefill_kernels import (
    LIBRARY,
    Instructions,
    kernel_library,
    use_prefill_kernels,
)
from llm_backend.engine.llama.prefill_kernels.ggml_graphs import Graph, convert_values
from llm_backend.engine.llama.prefill_kernels.kernel_library import PrefillKernels, prefill_kernels
from llm_backend.engine.llama.prefill_kernels.self_test import passes_self_test
from llm_backend.engine.messages import Generate, MissingKernels, Sampling
from tests.engine.conftest import answer

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and sys.platform == "linux"), reason="they are compiled on Linux"
)

Q8_0, Q4_0, Q6_K = native.GGML_TYPE_Q8_0, native.GGML_TYPE_Q4_0, native.GGML_TYPE_Q6_K
F32, F16, BF16 = native.GGML_TYPE_F32, native.GGML_TYPE_F16, 30
FLOAT_SUMS = 1e-5  # relative difference of sums of float32 in another order
HALF, BRAIN = 1e-3, 8e-3  # the same of numbers rounded to half precision, to bfloat16
LEVELS = tuple(level for level in Instructions if level)
LEAST_TOKENS = {level: 8 if level is Instructions.AVX2 else 4 for level in LEVELS}


@pytest.fixture(scope="module")
def kernels() -> Iterator[PrefillKernels]:
    """The kernels; they compute nothing before a test allows it, nor afterwards."""
    if not LIBRARY.exists():  # a source tree that is used without being installed has none yet
        hatch_build.compile_kernels(LIBRARY.parent)
        prefill_kernels.cache_clear()
    native.llama_backend_init()
    found = prefill_kernels()
    if found is MissingKernels.NO_INSTRUCTIONS:
        pytest.skip("this processor has no instructions for them")
    yield found
    found.allow(Instructions.NONE)


@pytest.fixture(params=LEVELS, ids=lambda level: level.name)
def level(request, kernels) -> Instructions:
    if request.param > kernels.supported:
        pytest.skip("this processor has no instructions for them")
    return request.param


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(
    kernels: PrefillKernels, level: Instructions, build: Callable[[Graph], int], shape: tuple
) -> tuple[np.ndarray, tuple[int, int]]:
    """Result of an operation in two threads, and how many operations the kernels computed."""
    before = kernels.count_operations()
    kernels.allow(level)
    with closing(Graph()) as graph:
        graph.set_threads(2)
        result = graph.compute(build(graph), shape)
    kernels.allow(Instructions.NONE)
    after = kernels.count_operations()
    return result, (after[0] - before[0], after[1] - before[1])


def error(result: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(result - truth) / np.linalg.norm(truth))


def product(weights: np.ndarray, values: np.ndarray, kind: int) -> Callable[[Graph], int]:
    return lambda graph: graph.product(graph.tensor(weights, kind), graph.tensor(values))


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None, kind: int, **options
) -> Callable[[Graph], int]:
    def build(graph: Graph) -> int:
        kept = (graph.tensor(k, kind), graph.tensor(v, kind))
        masked = None if mask is None else graph.tensor(mask, F16)
        sinks = options.get("sinks")
        others = {} if sinks is None else {"sinks": graph.tensor(sinks)}
        numbers_ = {name: value for name, value in options.items() if name != "sinks"}
        tensors = (graph.tensor(q), *kept, masked)
        return graph.attention(tensors, scale=q.shape[-1] ** -0.5, **numbers_, **others)

    return build


def exact_attention(q, k, v, mask, sinks=None) -> np.ndarray:
    """The definition, in 64 bits: [streams, tokens, heads, elements]."""
    group = q.shape[1] // k.shape[1]
    keys, values = (np.repeat(one, group, axis=1).astype(np.float64) for one in (k, v))
    scores = q.astype(np.float64) @ keys.swapaxes(2, 3) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask
    if sinks is not None:
        column = np.broadcast_to(sinks.reshape(1, -1, 1, 1), (*scores.shape[:3], 1))
        scores = np.concatenate([scores, column], axis=3)
    largest = scores.max(axis=3, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    sums = weights.sum(axis=3, keepdims=True)
    weights = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
    return (weights[..., : k.shape[2]] @ values).swapaxes(1, 2)


def causal(tokens: int, cells: int, streams: int = 1) -> np.ndarray:
    ahead = np.arange(cells) > np.arange(tokens)[:, None] + cells - tokens
    return np.broadcast_to(
        np.where(ahead, np.float32(-np.inf), np.float32(0)), (streams, 1, tokens, cells)
    ).copy()


@pytest.mark.parametrize(
    ("tokens", "rows", "columns"),
    [(4, 16, 32), (5, 17, 96), (31, 40, 576), (48, 33, 64), (97, 70, 1600), (300, 49, 4160)],
)
def test_product_of_eight_bits_is_as_exact_as_ggmls(kernels, level, tokens, rows, columns):
    weights, values = numbers(rows, columns), numbers(tokens, columns, seed=1)
    build, shape = product(weights, values, Q8_0), (tokens, rows)
    by_ggml, none = run(kernels, Instructions.NONE, build, shape)

    result, computed = run(kernels, level, build, shape)

    stored = quants.quantize(weights, GGMLQuantizationType.Q8_0)
    truth = values.astype(np.float64) @ quants.dequantize(stored, GGMLQuantizationType.Q8_0).T
    assert (none, computed) == ((0, 0), (int(tokens >= LEAST_TOKENS[level]), 0))
    assert error(result, truth) < 1.1 * error(by_ggml, truth)
    if level < Instructions.AMX or tokens < 48:
        assert error(result, by_ggml) < FLOAT_SUMS


@pytest.mark.parametrize("kind", [Q4_0, Q6_K], ids=["q4_0", "q6_k"])
def test_product_of_weights_rounded_to_eight_bits_is_about_as_exact_as_ggmls(kernels, kind):
    if kernels.supported < Instructions.AVX512_VNNI:
        pytest.skip("this processor has no instructions for it")
    weights, values = numbers(50, 2560) / 1000, numbers(260, 2560, seed=1)
    build = product(weights, values, kind)
    by_ggml, _ = run(kernels, Instructions.NONE, build, (260, 50))

    result, computed = run(kernels, Instructions.AVX512_VNNI, build, (260, 50))
    _, by_avx2 = run(kernels, Instructions.AVX2, build, (260, 50))

    name = {Q4_0: "Q4_0", Q6_K: "Q6_K"}[kind]
    stored = convert_values(weights, kind).reshape(50, -1)
    truth = values.astype(np.float64) @ quants.dequantize(stored, GGMLQuantizationType[name]).T
    assert (computed, by_avx2) == ((1, 0), (0, 0))
    assert error(result, truth) < 1.5 * error(by_ggml, truth)


@pytest.mark.parametrize("kind", [Q4_0, Q6_K, BF16], ids=["q4_0", "q6_k", "bf16"])
def test_product_of_other_types_is_as_exact_as_ggmls(kernels, kind):
    if kernels.supported < Instructions.AMX:
        pytest.skip("only AMX computes them")
    weights, values = numbers(50, 1536), numbers(70, 1536, seed=1)
    if kind == BF16:  # nothing to round
        weights = (weights.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    build = product(weights, values, kind)
    by_ggml, _ = run(kernels, Instructions.NONE, build, (70, 50))

    result, computed = run(kernels, Instructions.AMX, build, (70, 50))

    name = {Q4_0: "Q4_0", Q6_K: "Q6_K", BF16: "BF16"}[kind]
    stored = convert_values(weights, kind).reshape(50, -1)
    truth = values.astype(np.float64) @ quants.dequantize(stored, GGMLQuantizationType[name]).T
    assert computed == (1, 0)
    assert error(result, truth) < 1.1 * error(by_ggml, truth) + FLOAT_SUMS


@pytest.mark.parametrize(("kind", "tokens"), [(F32, 64), (F16, 64), (Q8_0, 3)])
def test_product_of_other_shapes_and_types_is_left_to_ggml(kernels, kind, tokens):
    build = product(numbers(32, 64), numbers(tokens, 64, seed=1), kind)
    by_ggml, _ = run(kernels, Instructions.NONE, build, (tokens, 32))

    result, computed = run(kernels, kernels.supported, build, (tokens, 32))

    assert computed == (0, 0)
    assert np.array_equal(result, by_ggml)


@pytest.mark.parametrize(
    ("heads", "shared", "head", "tokens", "cells"),
    [(1, 1, 32, 16, 16), (4, 2, 64, 37, 130), (9, 3, 64, 100, 256), (6, 1, 80, 65, 65),
     (16, 1, 128, 20, 300), (2, 2, 256, 70, 512)],
)  # fmt: skip
def test_attention_has_the_defined_result(kernels, level, heads, shared, head, tokens, cells):
    q = numbers(1, heads, tokens, head)
    k, v = numbers(2, 1, shared, cells, head, seed=1).astype(np.float16).astype(np.float32)
    mask = causal(tokens, cells)

    result, computed = run(kernels, level, attention(q, k, v, mask, F16), (1, tokens, heads, head))

    assert computed == (0, 1)
    limit = BRAIN if level >= Instructions.AVX512_BF16 else FLOAT_SUMS
    assert error(result, exact_attention(q, k, v, mask)) < limit


def test_attention_of_several_sequences_reads_only_their_cells(kernels, level):
    q = numbers(3, 4, 33, 64)
    k, v = numbers(2, 3, 2, 200, 64, seed=1).astype(np.float16).astype(np.float32)
    mask = causal(33, 200, streams=3)
    mask[1, 0, :, :90] = -np.inf  # other sequences' cells
    mask[2, 0, 5] = -np.inf  # a query without any cell

    result, computed = run(kernels, level, attention(q, k, v, mask, F16), (3, 33, 4, 64))

    assert computed == (0, 1)
    assert not result[2, 5].any()
    limit = BRAIN if level >= Instructions.AVX512_BF16 else FLOAT_SUMS
    assert error(result, exact_attention(q, k, v, mask)) < limit


def test_attention_adds_finite_masks_and_sinks(kernels, level):
    q = 3 * numbers(1, 4, 40, 64)
    k, v = numbers(2, 1, 4, 100, 64, seed=1).astype(np.float16).astype(np.float32)
    mask = numbers(1, 1, 40, 100, seed=2).astype(np.float16).astype(np.float32)
    sinks = np.array([-50, 0, 3, 50], dtype=np.float32)

    result, computed = run(
        kernels, level, attention(q, k, v, mask, F16, sinks=sinks), (1, 40, 4, 64)
    )

    assert computed == (0, 1)
    limit = BRAIN if level >= Instructions.AVX512_BF16 else FLOAT_SUMS
    assert error(result, exact_attention(q, k, v, mask, sinks)) < limit


@pytest.mark.parametrize("kind", [Q8_0, F32], ids=["q8_0", "f32"])
def test_attention_reads_other_types_of_cells(kernels, level, kind):
    q, (k, v) = numbers(1, 4, 40, 64), numbers(2, 1, 2, 100, 64, seed=1)
    if kind == Q8_0:
        eight = GGMLQuantizationType.Q8_0
        k, v = (quants.dequantize(quants.quantize(one, eight), eight) for one in (k, v))

    result, computed = run(kernels, level, attention(q, k, v, None, kind), (1, 40, 4, 64))

    assert computed == (0, 1)
    limit = BRAIN if level >= Instructions.AVX512_BF16 else HALF
    assert error(result, exact_attention(q, k, v, None)) < limit


@pytest.mark.parametrize(
    ("tokens", "head", "options"),
    [(40, 64, {"max_bias": 8.0}), (40, 64, {"softcap": 30.0}), (15, 64, {}), (40, 40, {})],
)
def test_other_attention_is_left_to_ggml(kernels, tokens, head, options):
    q, (k, v) = numbers(1, 2, tokens, head), numbers(2, 1, 2, 64, head, seed=1)
    build = attention(q, k, v, causal(tokens, 64), F16, **options)
    by_ggml, _ = run(kernels, Instructions.NONE, build, (1, tokens, 2, head))

    result, computed = run(kernels, kernels.supported, build, (1, tokens, 2, head))

    assert computed == (0, 0)
    assert np.array_equal(result, by_ggml)


def test_missing_library_is_named_where_kernels_are_wanted(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_library, "LIBRARY", tmp_path / "libprefill.so")
    prefill_kernels.cache_clear()

    assert use_prefill_kernels(is_wanted=True) is MissingKernels.NOT_COMPILED
    assert use_prefill_kernels(is_wanted=False) is Instructions.NONE
    prefill_kernels.cache_clear()


def test_kernels_are_for_linux_on_x86(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    prefill_kernels.cache_clear()

    assert use_prefill_kernels(is_wanted=True) is MissingKernels.OTHER_SYSTEM
    prefill_kernels.cache_clear()


def test_self_test_notices_kernels_that_do_not_run_as_allowed():
    levels: list[int] = []

    assert passes_self_test(levels.append, [1])  # ggml's results equal themselves
    assert levels == [1, 0, 1, 0]


_PACKED_BUFFER = """
#include <stdlib.h>
static int has_memory;
static void *reserve(size_t alignment, size_t size) {
    return has_memory ? aligned_alloc(alignment, size) : NULL;
}
#define aligned_alloc reserve
#include "hook.c"
bool reserve_with(int memory, size_t size) { has_memory = memory; return reserve_packed(size); }
void *packed_buffer(void) { return packed; }
"""


def test_jobs_that_fit_keep_the_buffer_where_a_larger_one_finds_no_memory(kernels, tmp_path):
    source, target = tmp_path / "probe.c", tmp_path / "probe.so"
    source.write_text(_PACKED_BUFFER)
    subprocess.run(
        [
            *("cc", "-shared", "-fPIC", f"-I{LIBRARY.parent}", str(source)),
            *(str(LIBRARY), "-o", str(target)),
        ],
        check=True,
    )
    probe = ctypes.CDLL(str(target))
    probe.reserve_with.argtypes = (ctypes.c_int, ctypes.c_size_t)
    probe.reserve_with.restype = ctypes.c_bool
    probe.packed_buffer.restype = ctypes.c_void_p
    assert probe.reserve_with(True, 128)
    buffer = probe.packed_buffer()

    assert not probe.reserve_with(False, 1 << 20)

    assert buffer is not None
    assert probe.packed_buffer() == buffer
    assert probe.reserve_with(False, 128)
    assert not probe.reserve_with(False, 129)


def question(word: str) -> str:
    return f"<|im_start|>user\nCopy this: {word}<|im_end|>\n<|im_start|>assistant\n"


def copies(*words: str) -> str:
    """Turns of a chat in which words were repeated. The model has learned to: its next choices are
    clear, whatever rounds otherwise."""
    return "".join(f"{question(word)}{word}<|im_end|>\n" for word in words)


async def test_greedy_answers_after_long_prompts_equal_ggmls(kernels):
    words = ["stone", "river", "cloud", "piano", "tiger", "lemon", "chair", "bread"]
    asked = copies(*words) + question("banana")
    prompts = [asked, copies("green", *words) + question("window")]
    longer = copies(*words, "banana") + question("window")
    texts = []
    for uses_kernels in (True, False):
        config = EngineConfig(
            model_path=BUILTIN_PATH, slots=2, context_tokens=1024, kv_unified=True,
            prefill_kernels=uses_kernels, flash_attention=True, threads=1,
        )  # fmt: skip
        async with EngineClient(config) as engine:
            assert ("prefill with" in (await engine.ready()).backend) == uses_kernels
            first, second, third = [
                Generate(id=prompt, prompt=prompt, max_tokens=8, sampling=Sampling(temperature=0))
                for prompt in (*prompts, longer)
            ]
            answers = list(await asyncio.gather(answer(engine, first), answer(engine, second)))
            answers.append(await answer(engine, third))
            assert answers[2][-1].cached_tokens > 100
            texts.append(["".join(delta.text for delta in deltas) for deltas in answers])

    assert texts == [["banana", "window", "window"]] * 2
