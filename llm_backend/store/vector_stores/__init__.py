"""Vector stores: their files and texts as rows; the vectors are in the vector index."""

from llm_backend.store.vector_stores.store_rows import DROP, FORGET, INGEST, INGEST_LONG
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
    "DROP",
    "FORGET",
    "INGEST",
    "INGEST_LONG",
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
