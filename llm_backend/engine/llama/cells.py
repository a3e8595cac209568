"""The KV cells of a context, by slot."""

import ctypes
from typing import Any

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.vocabulary import Handle

__all__ = ["STATE_FORMAT", "Cells"]

STATE_FORMAT = f"llama.cpp {native.__version__}, {native.LLAMA_STATE_SEQ_VERSION}"
"""What the bytes of a slot's state are made by, and for."""


class Cells:
    """Cuts, copies and carries them. `copies_used`: what is copied are cells that are used, where
    these are the fewer, so that memory which the others would take is not touched.
    """

    def __init__(self, context: Handle, memory: Handle, *, copies_used: bool) -> None:
        self._context = context
        self._memory = memory
        self._room = native.llama_n_ctx_seq(context)  # cells of a slot
        self._copies_used = copies_used

    def truncate(self, slot: int, position: int) -> bool:
        """Keep what a slot holds before a position. False: this state cannot be cut, it is as it
        was. To empty a slot never fails."""
        return bool(native.llama_memory_seq_rm(self._memory, slot, position, -1))

    def copy(self, source: int, target: int) -> None:
        """Give `target` all cells that `source` has, instead of its own."""
        self.truncate(target, 0)
        are_few = self._copies_used and 2 * self.end(source) < self._room
        if are_few and self._write(target, self.state(source)):  # through memory of our own
            return
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def end(self, slot: int) -> int:
        """The position behind the last one that a slot holds."""
        return int(native.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def state(self, slot: int) -> NDArray[np.uint8]:
        """What a slot holds, as bytes: of the cells that are used."""
        size = native.llama_state_seq_get_size(self._context, slot)
        state = np.empty(size, dtype=np.uint8)
        read = native.llama_state_seq_get_data(self._context, _place(state), size, slot)
        return state[:read]

    def restore(self, slot: int, state: NDArray[np.uint8], end: int) -> bool:
        """Give a slot what another one held up to the position `end`, instead of its own. False:
        these are not the bytes of that, or there is no room; the slot is empty."""
        self.truncate(slot, 0)
        if self._write(slot, state) and self.end(slot) == end:
            return True
        self.truncate(slot, 0)
        return False

    def _write(self, slot: int, state: NDArray[np.uint8]) -> bool:
        """Whether the native code took all of a state into an empty slot."""
        taken = native.llama_state_seq_set_data(self._context, _place(state), state.size, slot)
        return bool(taken) and taken == state.size


def _place(state: NDArray[np.uint8]) -> Any:  # the binding's own type of pointer
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
