"""Batches: many requests in a file, and their answers until they are files themselves.

Two kinds of jobs move a batch on. One job of `BATCH` reads its input and, later, writes its output;
in between its lines are jobs of `BATCH_LINES`, some lines each, which processes share by claiming
them. Whoever finishes the last of those adds the job that ends the batch.
"""

from llm_backend.store.batches.batches import Batches
from llm_backend.store.batches.stored_batch import (
    BATCH,
    BATCH_LINES,
    BatchEnd,
    BatchStatus,
    LineResult,
    Lines,
    StoredBatch,
    TokenCounts,
)

__all__ = [
    "BATCH",
    "BATCH_LINES",
    "BatchEnd",
    "BatchStatus",
    "Batches",
    "LineResult",
    "Lines",
    "StoredBatch",
    "TokenCounts",
]
