"""The KV cells of a context, by slot."""

import ctypes
import mmap
from typing import Any

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.model import DecodeError

STATE_FORMAT = f"llama.cpp {native.__version__}, {native.LLAMA_STATE_SEQ_VERSION}"
"""Version of the bytes of a saved state: the native code and its state format."""


def _memory_update() -> Any:  # Any: a function of ctypes
    """Returns the native code's method that makes pending copies (`llama_context::memory_update`),
    which its C interface lacks; None where the library does not export it."""
    update = getattr(native.llama_cpp._lib, "_ZN13llama_context13memory_updateEb", None)
    if update is not None:
        update.argtypes, update.restype = [ctypes.c_void_p, ctypes.c_bool], ctypes.c_bool
    return update


_update_memory = _memory_update()


class Cells:
    """Truncates, copies, saves and restores cells.

    The native code copies cells at once if all slots share them, but those of separate slots at the
    beginning of its next pass. States that are read or written before that would hold the cells of
    before the copy, so pending copies are made first.

    With `copies_only_used_cells`, only the used cells of a slot are copied if they are fewer than
    half, so that the memory of the others is not touched. With `has_snapshots`, the native code
    keeps snapshots of recurrent states. Its own copy after a rollback would hold the state before
    the rollback, so a copy saves and restores the state instead.

    Layers with a sliding `window` see that many tokens, 0 if there are none. If slots share their
    cells, the native code gives those that have left the window of a slot's end to other slots."""

    def __init__(
        self,
        context: Handle,
        memory: Handle,
        *,
        copies_only_used_cells: bool,
        has_snapshots: bool = False,
        window: int = 0,
    ) -> None:
        self._context = context
        self._memory = memory
        self._slot_cells = native.llama_n_ctx_seq(context)  # cells of a slot
        self._copies_only_used_cells = copies_only_used_cells
        self._has_snapshots = has_snapshots
        self._window = window
        self._is_separate = self._slot_cells < native.llama_n_ctx(context)
        self._is_copy_pending = False

    def truncate(self, slot: int, position: int) -> bool:
        """Removes the cells of a slot from `position` on. Returns False, and changes nothing, if
        this state cannot be truncated. Position 0, which empties the slot, never fails."""
        if position and self._has_lost_window(slot, position):
            return False
        return bool(native.llama_memory_seq_rm(self._memory, slot, position, -1))

    def copy(self, source: int, target: int) -> None:
        """Replaces the cells of slot `target` by a copy of the cells of `source`. Raises
        `DecodeError` if the native code refuses a state."""
        self.truncate(target, 0)
        if self._has_snapshots or (self._is_separate and _update_memory is None):
            if self.end(source) and not self._write(target, self.state(source)):
                raise DecodeError("the state of a slot could not be copied")
            return
        are_few = self._copies_only_used_cells and 2 * self.end(source) < self._slot_cells
        if are_few and self._write(target, self.state(source)):
            return
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._is_copy_pending = self._is_separate

    def end(self, slot: int) -> int:
        """Returns the position after the last one in a slot."""
        return int(native.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def state_bytes(self, slot: int) -> int:
        """Returns the size of the state of a slot's used cells, which `state` allocates."""
        return int(native.llama_state_seq_get_size(self._context, slot))

    def state(self, slot: int) -> NDArray[np.uint8]:
        """Returns the state of a slot's used cells: [bytes] uint8."""
        self._make_pending_copies()
        size = self.state_bytes(slot)
        # Pages of its own return to the system with the state; `malloc` might retain them.
        state = np.frombuffer(mmap.mmap(-1, max(1, size)), dtype=np.uint8)
        read = native.llama_state_seq_get_data(self._context, _pointer(state), size, slot)
        return state[:read]

    def restore(self, slot: int, state: NDArray[np.uint8], end: int) -> bool:
        """Replaces the cells of a slot by a saved `state` that ends at position `end`. Returns
        False, and leaves the slot empty, if the bytes are invalid or cells are exhausted."""
        self.truncate(slot, 0)
        if self._write(slot, state) and self.end(slot) == end:
            return True
        self.truncate(slot, 0)
        return False

    def _has_lost_window(self, slot: int, position: int) -> bool:
        """True if the token at `position` would see tokens whose cells are another slot's now."""
        if not self._window:
            return False
        first_seen = max(0, position - self._window + 1)
        return int(native.llama_memory_seq_pos_min(self._memory, slot)) > first_seen

    def _write(self, slot: int, state: NDArray[np.uint8]) -> bool:
        """Writes a state into an empty slot. Returns True if the native code has read all of it."""
        self._make_pending_copies()
        read = native.llama_state_seq_set_data(self._context, _pointer(state), state.size, slot)
        return bool(read) and read == state.size

    def _make_pending_copies(self) -> None:
        if self._is_copy_pending and _update_memory is not None:
            _update_memory(self._context, False)
            self._is_copy_pending = False


def _pointer(state: NDArray[np.uint8]) -> Any:  # the binding's own type of pointer
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
