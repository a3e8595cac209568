"""Batches: many requests in a file, and their answers until these are in files themselves.

Two kinds of jobs process a batch. A first job of `BATCH` reads its input and adds jobs of
`BATCH_LINES`, each for a range of lines; processes share them by claiming. A second job of `BATCH`
writes its output; the transaction that finishes or removes the last job of lines adds it.

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
