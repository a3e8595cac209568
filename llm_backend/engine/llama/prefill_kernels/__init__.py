"""Compiled kernels for passes of several tokens on x86: products of quantized weights, attention.

On processors with AVX-512 VNNI or AMX the kernels replace those of llama.cpp's CPU backend, and run
in its threads. hatch_build.py compiles them (libprefill.so). products.c and attention.c say what
the kernels compute and what is left to llama.cpp; hook.c says how they are called.

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
