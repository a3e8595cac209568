"""Vector stores: their files and texts as rows; the vectors are in the vector index.

vector_stores.py    store of vector stores
values.py           values
store_rows.py       vector stores as rows
file_rows.py        their files as rows
file_batch_rows.py  batches of files as rows
chunk_rows.py       chunks of texts as rows
"""

from llm_backend.store.vector_stores.store_rows import (
    INGEST,
    INGEST_LONG,
    REMOVE_FILE,
    REMOVE_STORE,
)
from llm_backend.store.vector_stores.values import (
    Attribute,
    FileCounts,
    FileError,
    FoundChunk,
    NewVectorFile,
    StoredChunk,
    StoredChunking,
    StoredFileBatch,
    StoredVectorFile,
    StoredVectorStore,
)
from llm_backend.store.vector_stores.vector_stores import VectorStores

__all__ = [
    "INGEST",
    "INGEST_LONG",
    "REMOVE_FILE",
    "REMOVE_STORE",
    "Attribute",
    "FileCounts",
    "FileError",
    "FoundChunk",
    "NewVectorFile",
    "StoredChunk",
    "StoredChunking",
    "StoredFileBatch",
    "StoredVectorFile",
    "StoredVectorStore",
    "VectorStores",
]
