"""Bitmap of audio: the samples as llama.cpp's functions for media take them."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.vocabulary import Handle


@contextmanager
def audio_bitmap(samples: NDArray[np.float32]) -> Iterator[Handle]:
    """Makes a bitmap with a copy of the samples, and frees it at the end."""
    data = samples.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    bitmap = mtmd.mtmd_bitmap_init_from_audio(len(samples), data)
    try:
        yield bitmap
    finally:
        mtmd.mtmd_bitmap_free(bitmap)
