"""Norm before the projector of MERaLiON, which llama.cpp computes of a stack of positions.

The reference implementation normalizes each position of the encoder and then stacks them. llama.cpp
stacks them first, and normalizes each stack as one. So the result is replaced while it computes;
the weights that it is multiplied by afterwards are those of a position in both.
"""

from typing import Self

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.native_tensors import NativeTensors
from llm_backend.model_files import GgufHeader, audio_projector_types

_PROJECTOR = "meralion"
_SIZE_KEY = "clip.audio.embedding_length"
_EPSILON = 1e-5
_STACKED, _NORM_OP = b"after_stacked", b"NORM"


class StackedNorm:
    """Callback of the computations of an encoder, which changes the norm after its stack."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._tensors = NativeTensors()
        self._stacked: NDArray[np.float32] | None = None
        self.callback = native.ggml_backend_sched_eval_callback(self._evaluate)

    @classmethod
    def of(cls, header: GgufHeader) -> Self | None:
        """The norm of the projector with this header; None if it has none, or lacks the number
        without which llama.cpp does not load it."""
        size = int(header.values.get(_SIZE_KEY, 0))
        if _PROJECTOR not in audio_projector_types(header) or not size:
            return None
        return cls(size=size)

    def begin(self) -> None:
        """Forgets what an earlier computation, which may have failed, has left."""
        self._stacked = None

    def _evaluate(self, tensor: int, is_question: bool, _data: object) -> bool:
        """Answers whether the values of a tensor are needed, and changes those of the norm."""
        if self._tensors.name(tensor) == _STACKED:
            if not is_question:
                self._stacked = self._tensors.read_rows(tensor, self._size)
            return True
        if self._stacked is None or self._tensors.operation(tensor) != _NORM_OP:
            return False
        if not is_question:
            self._tensors.write(tensor, _normalize(self._stacked))
            self._stacked = None
        return True


def _normalize(values: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = values - values.mean(axis=1, keepdims=True)
    deviations = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(_EPSILON))
    normalized: NDArray[np.float32] = centred / deviations
    return normalized
