"""The KV cells of a context, by slot."""

import ctypes

import llama_cpp as native
import numpy as np

from llm_backend.engine.llama.vocabulary import Handle

__all__ = ["Cells"]


class Cells:
    """Cuts and copies them. `copies_used`: what is copied are cells that are used, where these are
    the fewer, so that memory which the others would take is not touched.
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
        if self._copies_used and self._are_few(source) and self._has_copied_used(source, target):
            return
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def _are_few(self, slot: int) -> bool:
        """Whether to read and to write the used ones is less than to copy all there are."""
        used = native.llama_memory_seq_pos_max(self._memory, slot) + 1
        return bool(2 * used < self._room)

    def _has_copied_used(self, source: int, target: int) -> bool:
        """Copies the cells that are used, through memory of our own. False: the native code would
        not, and `target` is empty."""
        size = native.llama_state_seq_get_size(self._context, source)
        state = np.empty(size, dtype=np.uint8)
        place = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        read = native.llama_state_seq_get_data(self._context, place, size, source)
        return bool(native.llama_state_seq_set_data(self._context, place, read, target))
