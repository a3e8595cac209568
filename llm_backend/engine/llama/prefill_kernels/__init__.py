"""Compiled kernels for passes of several tokens on x86: products of quantized weights, attention.

The kernels replace those of llama.cpp's CPU backend, and run in its threads. hatch_build.py
compiles them (libprefill.so). products.c and attention.c say what they compute and what is left to
llama.cpp; hook.c says how they are called. Each instruction set has its files:

              products                             attention
AVX2          products_avx2.c, products_blocks.h   attention_avx2.c, attention_floats.h
AVX-512 VNNI  products_vnni.c, products_blocks.h   attention_avx512.c, attention_floats.h
AVX-512 BF16  those of VNNI                        attention_avx512.c
AMX           products_amx.c                       attention_avx512.c

kernel_library.py  the compiled library, and its installation in the loaded llama.cpp
self_test.py       the test of the kernels on the processor they run on
ggml_graphs.py     graphs of a single operation, for that test and others
"""

from llm_backend.engine.llama.prefill_kernels.kernel_library import (
    LIBRARY,
    Instructions,
    use_prefill_kernels,
)

__all__ = ["LIBRARY", "Instructions", "use_prefill_kernels"]
