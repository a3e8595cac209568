"""Rotary positions of GLM-ASR's encoder, which llama.cpp does not compute.

The encoder rotates queries and keys by their position, in the first half of each head's dimensions
and with neighbours as pairs. llama.cpp adds the learned positions of Whisper instead, which the
file contains although the model's authors do not use them. So both are changed while it computes:
the sum with the positions is replaced by what it was before, and queries and keys are rotated.
"""

import re
from typing import Self

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.native_tensors import NativeTensors
from llm_backend.model_files import GgufHeader, audio_projector_types

_PROJECTOR = "glma"
_SIZE_KEYS = ("clip.audio.embedding_length", "clip.audio.attention.head_count")
_BASE = 10_000.0
_INPUT, _SUM = b"after_conv1d", b"pos_embed"
_ROTATED = re.compile(rb"[QK]cur-\d+")
"""With the number of the layer; their views have longer names."""


class RotaryPositions:
    """Callback of the computations of an encoder, which changes its positions."""

    def __init__(self, *, size: int, heads: int) -> None:
        self._size, self._heads = size, heads
        self._tensors = NativeTensors()
        self._input = np.empty((0, size), dtype=np.float32)
        self._factors = _factors(0, size // heads)
        self.callback = native.ggml_backend_sched_eval_callback(self._evaluate)

    @classmethod
    def of(cls, header: GgufHeader) -> Self | None:
        """The rotary positions of the projector with this header; None if it has none, or lacks
        the numbers without which llama.cpp does not load it."""
        size, heads = (int(header.values.get(key, 0)) for key in _SIZE_KEYS)
        if _PROJECTOR not in audio_projector_types(header) or not size or not heads:
            return None
        return cls(size=size, heads=heads)

    def begin(self) -> None:
        """Forgets what an earlier computation has left."""
        self._input = np.empty((0, self._size), dtype=np.float32)

    def _evaluate(self, tensor: int, is_question: bool, _data: object) -> bool:
        """Answers whether the values of a tensor are needed, and changes them."""
        name = self._tensors.name(tensor)
        if name not in (_INPUT, _SUM) and not _ROTATED.fullmatch(name):
            return False
        if is_question:
            return True
        if name == _INPUT:
            self._input = self._tensors.read_rows(tensor, self._size)
        elif name == _SUM:
            self._tensors.write(tensor, self._input)
        else:
            self._tensors.write(tensor, self._rotate(self._tensors.read_rows(tensor, self._size)))
        return True

    def _rotate(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotates the values, each pair of neighbours as a complex number."""
        positions = len(values)
        if len(self._factors) != positions:
            self._factors = _factors(positions, self._size // self._heads)
        pairs = values.view(np.complex64).reshape(positions, self._heads, -1)
        pairs[:, :, : self._factors.shape[-1]] *= self._factors
        return values


def _factors(positions: int, head_size: int) -> NDArray[np.complex64]:
    """The factor of each pair of the rotated half: [positions, 1, pairs] complex64."""
    rotated = head_size // 2
    speeds = _BASE ** (-np.arange(0, rotated, 2) / rotated)
    angles = np.arange(positions)[:, np.newaxis, np.newaxis] * speeds
    factors: NDArray[np.complex64] = np.exp(1j * angles).astype(np.complex64)
    return factors
