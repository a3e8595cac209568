"""One pass's tokens as flat arrays, filled without a loop over tokens."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class BatchChunk:
    """Consecutive tokens of one slot, beginning at `position`. `outputs` are the indices of
    those tokens whose logits or embeddings are wanted."""

    slot: int
    position: int
    tokens: list[int]
    outputs: list[int]


class BatchArrays:
    """Arrays for up to `capacity` tokens. `slot_addresses` points to each token's entry in
    `slots`, because a native batch needs a list of slots for every token."""

    def __init__(self, capacity: int) -> None:
        self.tokens = np.zeros(capacity, dtype=np.int32)
        self.positions = np.zeros(capacity, dtype=np.int32)
        self.slot_counts = np.ones(capacity, dtype=np.int32)
        self.slots = np.zeros(capacity, dtype=np.int32)
        self.outputs = np.zeros(capacity, dtype=np.int8)
        offsets = np.arange(capacity, dtype=np.uintp) * np.uintp(self.slots.itemsize)
        self.slot_addresses = offsets + np.uintp(self.slots.ctypes.data)
        self.length = 0
        self.output_count = 0  # number of outputs

    def fill(self, chunks: list[BatchChunk]) -> None:
        """Replaces the contents by `chunks`."""
        self.length = self.output_count = 0
        for chunk in chunks:
            if len(chunk.tokens) == 1:  # decoding: assigning values costs less than slices
                self._write_token(chunk)
            else:
                self._write_tokens(chunk)
            self.length += len(chunk.tokens)
            self.output_count += len(chunk.outputs)

    def _write_token(self, chunk: BatchChunk) -> None:
        index = self.length
        self.tokens[index] = chunk.tokens[0]
        self.positions[index] = chunk.position
        self.slots[index] = chunk.slot
        self.outputs[index] = len(chunk.outputs)

    def _write_tokens(self, chunk: BatchChunk) -> None:
        start, end = self.length, self.length + len(chunk.tokens)
        self.tokens[start:end] = chunk.tokens
        self.positions[start:end] = np.arange(chunk.position, chunk.position + end - start)
        self.slots[start:end] = chunk.slot
        self.outputs[start:end] = 0
        self.outputs[[start + index for index in chunk.outputs]] = 1
