"""Sampling by temperature, top-p and min-p in C: nucleus.c computes the same as `sample_nucleus`.

nucleus.c is compiled when the package is installed. If that failed, or the processor is older than
the compiler's target, numpy samples the same tokens more slowly.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.filters import REJECTIONS_LIMIT
from llm_backend.engine.sampling.top_k import Row

LIBRARY = Path(__file__).with_name("libnucleus.so")
"""The library that hatch_build.py compiles."""

_BLOCK = 512  # the same as in nucleus.c
_NOT_SAMPLED, _NOT_FINITE = -1, -2  # as in nucleus.c


class NotFinite(Exception):
    """The largest logit is NaN or infinite."""


class NativeNucleus:
    """Samples tokens of one sequence, with the random numbers of `rng`: as many as
    `sample_nucleus` would take."""

    def __init__(self, sampling: Sampling, rng: np.random.Generator) -> None:
        numbers = rng.bit_generator.ctypes
        self._rng = rng  # keeps the state at `state_address` alive
        self._parameters = (
            1 / sampling.temperature,
            sampling.top_p,
            sampling.min_p,
            REJECTIONS_LIMIT,
        )
        self._numbers = (ctypes.cast(numbers.next_double, ctypes.c_void_p), numbers.state_address)
        self._buffers = _WeightBuffers(0)
        self._call = _library().llm_backend_nucleus

    @staticmethod
    @functools.cache  # called for every answer
    def is_available() -> bool:
        """True if the library is installed and this processor supports it."""
        return LIBRARY.exists() and bool(_library().llm_backend_nucleus_suits())

    def sample(self, row: Row) -> int | None:
        """Samples an index of a contiguous row of logits, [vocab] float32; None after too
        many rejections. Raises `NotFinite`."""
        if self._buffers.size != len(row):
            self._buffers = _buffers(len(row))
        index: int = self._call(
            row.__array_interface__["data"][0],
            len(row),
            *self._parameters,
            *self._numbers,
            *self._buffers.addresses,
        )
        if index == _NOT_FINITE:
            raise NotFinite
        return None if index == _NOT_SAMPLED else index


class _WeightBuffers:
    """Buffers for weights and their sums, shared by all sequences: one is sampled at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._weights = np.empty(size, dtype=np.float32)
        self._sums = np.empty(size // _BLOCK + 1, dtype=np.float64)
        self.addresses = (self._weights.ctypes.data, self._sums.ctypes.data)


@functools.lru_cache(maxsize=2)  # a process has one vocabulary; tests have several
def _buffers(size: int) -> _WeightBuffers:
    return _WeightBuffers(size)


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.PyDLL(str(LIBRARY))  # calls are so short that they keep the GIL
    pointer, number = ctypes.c_void_p, ctypes.c_float
    library.llm_backend_nucleus.restype = ctypes.c_int32
    library.llm_backend_nucleus.argtypes = (
        *(pointer, ctypes.c_size_t, number, number, number, ctypes.c_int),
        *(pointer, pointer, pointer, pointer),
    )
    library.llm_backend_nucleus_suits.restype = ctypes.c_int
    return library
