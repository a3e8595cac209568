"""Frame after the end of audio, for the first convolution of an encoder like Whisper's.

An encoder that computes only the frames of the audio sees zeros after them. Where the reference
implementation sees the next frame of its spectrogram, this one is written into the convolution's
input while llama.cpp computes.
"""

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.native_tensors import NativeTensors

_WIDTH = 3  # frames that the convolution sees: one before, its own, one after
_INPUT_OP = b"IM2COL"
_TYPES = {2: np.float16, 4: np.float32}  # by bytes


class ConvolutionEnd:
    """Callback of the computations of an encoder, which changes one of them."""

    def __init__(self) -> None:
        self._tensors = NativeTensors()
        self._next_frame: NDArray[np.float32] | None = None
        self._frames = 0
        self.callback = native.ggml_backend_sched_eval_callback(self._evaluate)

    def expect(self, next_frame: NDArray[np.float32] | None, frames: int) -> None:
        """Sets the frame after the end of the next computation, [mels] float32; None if it is to be
        left as it is. The computation has this number of frames."""
        self._next_frame, self._frames = next_frame, frames

    def _evaluate(self, tensor: int, is_question: bool, _data: object) -> bool:
        """Answers whether the values of a tensor are needed, and changes those of the first
        convolution's input."""
        if self._next_frame is None or self._tensors.operation(tensor) != _INPUT_OP:
            return False
        if not is_question:
            self._change(tensor, self._next_frame)
            self._next_frame = None
        return True

    def _change(self, tensor: int, next_frame: NDArray[np.float32]) -> None:
        row_bytes = self._tensors.count_bytes(tensor) // self._frames
        kind = _TYPES[row_bytes // (_WIDTH * len(next_frame))]
        row = np.empty((len(next_frame), _WIDTH), dtype=kind)
        offset = row_bytes * (self._frames - 1)
        self._tensors.read(tensor, row, offset=offset)
        row[:, -1] = next_frame
        self._tensors.write(tensor, row, offset=offset)
