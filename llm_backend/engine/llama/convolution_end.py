"""Frame after the end of audio, for the convolutions of an encoder like Whisper's.

An encoder that computes only the frames of the audio sees zeros after them. Where the reference
implementation sees something else, this is written into a convolution's input while llama.cpp
computes: the next frame of the spectrogram before the first convolution, or zeros before the second
one, for which llama.cpp computes a frame more if their number is odd.
"""

from dataclasses import dataclass

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.native_tensors import NativeTensors

_WIDTH = 3  # frames that a convolution sees: one before, its own, one after
_INPUT_OP = b"IM2COL"
_TYPES = {2: np.float16, 4: np.float32}  # by bytes


@dataclass(frozen=True, kw_only=True)
class LastFrame:
    """The frame that a convolution sees after the last of its `outputs`: [channels] float32. The
    first convolution has the number 0."""

    convolution: int
    outputs: int
    values: NDArray[np.float32]


class ConvolutionEnd:
    """Callback of the computations of an encoder, which changes one of them."""

    def __init__(self) -> None:
        self._tensors = NativeTensors()
        self._frame: LastFrame | None = None
        self._convolutions = 0  # those that have begun
        self.callback = native.ggml_backend_sched_eval_callback(self._evaluate)

    def expect(self, frame: LastFrame | None) -> None:
        """Sets the frame after the end of the next computation; None if it is to be left as it
        is."""
        self._frame, self._convolutions = frame, 0

    def _evaluate(self, tensor: int, is_question: bool, _data: object) -> bool:
        """Answers whether the values of a tensor are needed, and changes those of a convolution's
        input."""
        if self._frame is None or self._tensors.operation(tensor) != _INPUT_OP:
            return False
        if is_question:
            self._convolutions += 1
            return self._convolutions == self._frame.convolution + 1
        self._change(tensor, self._frame)
        self._frame = None
        return True

    def _change(self, tensor: int, frame: LastFrame) -> None:
        row_bytes = self._tensors.count_bytes(tensor) // frame.outputs
        kind = _TYPES[row_bytes // (_WIDTH * len(frame.values))]
        row = np.empty((len(frame.values), _WIDTH), dtype=kind)
        offset = row_bytes * (frame.outputs - 1)
        self._tensors.read(tensor, row, offset=offset)
        row[:, -1] = frame.values
        self._tensors.write(tensor, row, offset=offset)
