"""Codes of a voice: tokens that a language model of speech samples, one for each frame of audio."""

import ctypes
from collections.abc import Generator

import llama_cpp as native

from llm_backend.engine.llama.vocabulary import Handle

_TOP_K, _TEMPERATURE, _REPETITION = 50, 0.9, 1.05  # of the model's authors


def sample_codes(context: Handle, *, seed: int, limit: int) -> Generator[int, None, None]:
    """Yields up to `limit` tokens, each sampled from the context's last logits by the same seed."""
    chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
    try:
        for sampler in _samplers(native.llama_get_model(context), seed, limit):
            native.llama_sampler_chain_add(chain, sampler)
        for _ in range(limit):
            yield native.llama_sampler_sample(chain, context, -1)
    finally:
        native.llama_sampler_free(chain)


def _samplers(model: Handle, seed: int, limit: int) -> list[Handle]:
    vocabulary = native.llama_model_get_vocab(model)
    count, number = native.llama_vocab_n_tokens(vocabulary), ctypes.c_int32()
    tokens = native.llama_vocab_get_suppress_tokens(vocabulary, ctypes.byref(number))
    bias = (native.llama_logit_bias * number.value)()
    for place in range(number.value):
        bias[place].token, bias[place].bias = tokens[place], -float("inf")
    return [
        native.llama_sampler_init_logit_bias(count, number.value, bias),
        native.llama_sampler_init_penalties(count, limit, _REPETITION, 0.0, 0.0),
        native.llama_sampler_init_top_k(_TOP_K),
        native.llama_sampler_init_temp(_TEMPERATURE),
        native.llama_sampler_init_dist(seed),
    ]
