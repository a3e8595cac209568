"""One pass's tokens as flat arrays, filled without a loop over tokens."""

from dataclasses import dataclass

import numpy as np

__all__ = ["BatchArrays", "BatchChunk"]


@dataclass(frozen=True, kw_only=True)
class BatchChunk:
    """Consecutive tokens of one slot from `position` on; `outputs` are the places among them whose
    results are wanted."""

    slot: int
    position: int
    tokens: list[int]
    outputs: list[int]


class BatchArrays:
    """Room for `capacity` tokens. `slot_addresses` points to each token's entry in `slots`, as a
    native batch wants a list of slots for every token."""

    def __init__(self, capacity: int) -> None:
        self.tokens = np.zeros(capacity, dtype=np.int32)
        self.positions = np.zeros(capacity, dtype=np.int32)
        self.slot_counts = np.ones(capacity, dtype=np.int32)
        self.slots = np.zeros(capacity, dtype=np.int32)
        self.outputs = np.zeros(capacity, dtype=np.int8)
        offsets = np.arange(capacity, dtype=np.uintp) * np.uintp(self.slots.itemsize)
        self.slot_addresses = offsets + np.uintp(self.slots.ctypes.data)
        self.length = 0
        self.wanted = 0  # outputs

    def fill(self, chunks: list[BatchChunk]) -> None:
        """Put `chunks` in, instead of what was there."""
        self.length = self.wanted = 0
        for chunk in chunks:
            if len(chunk.tokens) == 1:  # that of who talks: values cost less than slices
                self._put_one(chunk)
            else:
                self._put(chunk)
            self.length += len(chunk.tokens)
            self.wanted += len(chunk.outputs)

    def _put_one(self, chunk: BatchChunk) -> None:
        place = self.length
        self.tokens[place] = chunk.tokens[0]
        self.positions[place] = chunk.position
        self.slots[place] = chunk.slot
        self.outputs[place] = len(chunk.outputs)

    def _put(self, chunk: BatchChunk) -> None:
        start, end = self.length, self.length + len(chunk.tokens)
        self.tokens[start:end] = chunk.tokens
        self.positions[start:end] = np.arange(chunk.position, chunk.position + end - start)
        self.slots[start:end] = chunk.slot
        self.outputs[start:end] = 0
        self.outputs[[start + place for place in chunk.outputs]] = 1
