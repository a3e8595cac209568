"""Reference audio of a sentence, by the native library's own steps."""

import ctypes
import itertools
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import llama_cpp as native
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

__all__ = ["ReferenceVoice", "reference_audio"]


def reference_audio(
    model: Path, projector: Path, text: str, *, seed: int, sample: Path | None = None
) -> NDArray[np.float32]:
    """The samples of a sentence, of a model that was just loaded. They are computed in a process of
    their own, because a model that was loaded here has left its prefill kernels in the library."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_compute, model, projector, text, seed, sample).result()


def _compute(
    model: Path, projector: Path, text: str, seed: int, sample: Path | None
) -> NDArray[np.float32]:
    return ReferenceVoice(model, projector).audio(text, seed=seed, sample=sample)


class ReferenceVoice:
    """A loaded voice by the native library's own steps, with one thread."""

    def __init__(self, model: Path, projector: Path) -> None:
        self._model = native.llama_model_load_from_file(
            str(model).encode(), native.llama_model_default_params()
        )
        params = native.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = 2048, 1, 1
        params.embeddings = True
        self._context = native.llama_init_from_model(self._model, params)
        options = mtmd.mtmd_context_params_default()
        options.use_gpu, options.n_threads, options.print_timings = False, 1, False
        self._codec = mtmd.mtmd_init_from_file(str(projector).encode(), self._model, options)
        self._generator = mtmd.mtmd_helper_gen_audio_init(self._context, self._codec)

    def audio(self, text: str, *, seed: int, sample: Path | None = None) -> NDArray[np.float32]:
        """The samples of a sentence."""
        native.llama_memory_clear(native.llama_get_memory(self._context), True)
        _set_input(self._generator, text, seed, _speaker(self._codec, sample))
        while mtmd.mtmd_helper_gen_audio_step_prompt(self._generator, 64) > 0:
            pass
        _step(self._context, self._generator, _codes(self._context, self._model, seed, text))
        return _audio(self._generator)


def _speaker(codec, sample: Path | None):
    if sample is None:
        return None
    data = sample.read_bytes()
    buffer = (ctypes.c_ubyte * len(data)).from_buffer_copy(data)
    return mtmd.mtmd_helper_bitmap_init_from_buf(codec, buffer, len(data), False)


def _set_input(generator, text: str, seed: int, speaker) -> None:
    data = text.encode()
    request = mtmd.mtmd_helper_gen_audio_inp(
        prompt=data, prompt_len=len(data), speaker_ref=speaker, seed=seed
    )
    assert mtmd.mtmd_helper_gen_audio_set_input(generator, ctypes.byref(request)) == 0


def _codes(context, loaded, seed: int, text: str):
    """Tokens as the library's own program draws them, with the authors' numbers: for voices whose
    vocabulary has codes."""
    vocabulary, count = native.llama_model_get_vocab(loaded), ctypes.c_int32()
    suppressed = native.llama_vocab_get_suppress_tokens(vocabulary, ctypes.byref(count))
    if not count.value:
        return itertools.repeat(native.LLAMA_TOKEN_NULL)
    size, frames = native.llama_vocab_n_tokens(vocabulary), 25 + 6 * len(text)
    bias = (native.llama_logit_bias * count.value)(
        *((suppressed[number], -math.inf) for number in range(count.value))
    )
    chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
    for sampler in (
        native.llama_sampler_init_logit_bias(size, count.value, bias),
        native.llama_sampler_init_penalties(size, frames, 1.05, 0.0, 0.0),
        native.llama_sampler_init_top_k(50),
        native.llama_sampler_init_temp(0.9),
        native.llama_sampler_init_dist(seed),
    ):
        native.llama_sampler_chain_add(chain, sampler)
    return (native.llama_sampler_sample(chain, context, -1) for _ in range(frames))


def _step(context, generator, codes) -> None:
    state = native.llama_get_embeddings_ith(context, -1)
    following, has_ended = ctypes.POINTER(ctypes.c_float)(), ctypes.c_bool()
    while state and not has_ended.value and (code := next(codes, None)) is not None:
        status = mtmd.mtmd_helper_gen_audio_step_gen(
            generator, code, state, ctypes.byref(following), ctypes.byref(has_ended)
        )
        assert status == 0
        state = following


def _audio(generator) -> NDArray[np.float32]:
    rate_hz, size = ctypes.c_int32(), ctypes.c_size_t()
    data, count = ctypes.POINTER(ctypes.c_char)(), ctypes.c_int64()
    mtmd.mtmd_helper_gen_audio_get_output(
        generator, ctypes.byref(rate_hz), ctypes.byref(data), ctypes.byref(size),
        ctypes.byref(count),
    )  # fmt: skip
    return np.frombuffer(ctypes.string_at(data, size.value), np.float32)
