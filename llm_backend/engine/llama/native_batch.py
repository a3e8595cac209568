"""Native batch of one pass, over numpy arrays: tokens, rows of embeddings, or both."""

import ctypes

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.batch import BatchArrays, BatchChunk
from llm_backend.engine.llama.projector import Embeddings
from llm_backend.engine.llama.vocabulary import Handle


class NativeBatch:
    """A native batch over arrays that Python owns."""

    def __init__(self, capacity: int) -> None:
        self.arrays = BatchArrays(capacity)
        self.native = native.llama_batch()
        kinds = dict(native.llama_batch._fields_)
        for name, array in (
            ("token", self.arrays.tokens),
            ("pos", self.arrays.positions),
            ("n_seq_id", self.arrays.slot_counts),
            ("seq_id", self.arrays.slot_addresses),
            ("logits", self.arrays.outputs),
        ):
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def add_embeddings(self, rows: NDArray[np.float32]) -> None:
        """Gives each token the row of `rows` at its index: [capacity, embedding size] float32,
        which must outlive the batch."""
        kind = dict(native.llama_batch._fields_)["embd"]
        self.native.embd = ctypes.cast(rows.ctypes.data, kind)

    def fill(self, chunks: list[BatchChunk]) -> int:
        """Replaces the contents by `chunks`; returns the number of outputs."""
        self.arrays.fill(chunks)
        self.native.n_tokens = self.arrays.length
        return self.arrays.output_count

    def from_embeddings(
        self, embeddings: Embeddings, slot: int, position: int, first: int, count: int
    ) -> Handle:
        """A native batch of embeddings instead of tokens, without outputs: rows [count, embedding
        size] float32. The batch uses the same arrays, and keeps some more alive."""
        rows = np.ascontiguousarray(embeddings.rows[first : first + count])
        whole = embeddings.positions_from(position)
        positions = np.ascontiguousarray(whole[:, first : first + count])
        self.arrays.slots[:count] = slot
        self.arrays.outputs[:count] = 0
        batch, kinds = native.llama_batch(), dict(native.llama_batch._fields_)
        for name in ("n_seq_id", "seq_id", "logits"):
            setattr(batch, name, getattr(self.native, name))
        batch.embd = ctypes.cast(rows.ctypes.data, kinds["embd"])
        batch.pos = ctypes.cast(positions.ctypes.data, kinds["pos"])
        batch.n_tokens = count
        batch.keep_alive = (rows, positions)
        return batch
