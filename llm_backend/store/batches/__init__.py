"""Batches: many requests in a file, and their answers until these are in files themselves.

Two kinds of jobs process a batch. One job of `BATCH` reads its input and, later, writes its output.
In between its lines are jobs of `BATCH_LINES`, each for a range of lines, which processes share by
claiming them. The transaction that finishes the last of these adds the job that ends the batch.

batches.py       store of batches
stored_batch.py  values
batch_rows.py    batches as rows
line_rows.py     answers to lines as rows
"""

from llm_backend.store.batches.batches import BatchStore
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
    "BatchStore",
    "LineResult",
    "Lines",
    "StoredBatch",
    "TokenCounts",
]
