"""Response objects for vector stores, their files, batches and search results (pure)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NotRequired

from llm_backend.controllers.vector_stores.retrieval.hybrid_search import Hit
from llm_backend.store import StoredFileBatch, StoredVectorFile, StoredVectorStore
from llm_backend.store.vector_stores import FileCounts, FileError

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    class DescribedVectorStore(api.VectorStoreObject):
        """A vector store with its description, which the document defines for requests only."""

        description: NotRequired[str]


def store_object(store: StoredVectorStore, now: int) -> "DescribedVectorStore":
    """Renders a vector store; `now` in Unix seconds."""
    expires_at = store.expires_at
    is_over = expires_at is not None and expires_at <= now
    answer: DescribedVectorStore = {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "usage_bytes": store.usage_bytes,
        "file_counts": _counts(store.files),
        "status": "expired" if is_over else _progress(store.files),
        "expires_at": expires_at,
        "last_active_at": store.last_active_at,
        "metadata": dict(store.metadata),
    }
    if store.description is not None:
        answer["description"] = store.description
    if store.expires_after_days is not None:
        answer["expires_after"] = {"anchor": "last_active_at", "days": store.expires_after_days}
    return answer


def file_object(file: StoredVectorFile) -> "api.VectorStoreFileObject":
    """Renders a vector store file."""
    return {
        "id": file.id,
        "object": "vector_store.file",
        "usage_bytes": file.usage_bytes,
        "created_at": file.created_at,
        "vector_store_id": file.store_id,
        "status": file.status,
        "last_error": None if file.error is None else _last_error(file.error),
        "chunking_strategy": {
            "type": "static",
            "static": {
                "max_chunk_size_tokens": file.chunking.max_tokens,
                "chunk_overlap_tokens": file.chunking.overlap_tokens,
            },
        },
        "attributes": dict(file.attributes),
    }


def batch_object(batch: StoredFileBatch) -> "api.VectorStoreFileBatchObject":
    """Renders a file batch."""
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": batch.created_at,
        "vector_store_id": batch.store_id,
        "status": "cancelled" if batch.is_cancelled else _outcome(batch.files),
        "file_counts": _counts(batch.files),
    }


def content_page(text: str) -> "api.VectorStoreFileContentResponse":
    """Renders the extracted text of a file."""
    return {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": text}] if text else [],
        "has_more": False,
        "next_page": None,
    }


def results_page(queries: Sequence[str], hits: Sequence[Hit]) -> "api.VectorStoreSearchResultsPage":
    """Renders search results."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(queries),
        "data": [
            {
                "file_id": hit.file_id,
                "filename": hit.filename,
                "score": hit.score,
                "attributes": dict(hit.attributes),
                "content": [{"type": "text", "text": hit.text}],
            }
            for hit in hits
        ],
        "has_more": False,
        "next_page": None,
    }


def _last_error(error: FileError) -> "api.VectorStoreFileObjectLastError":
    return {"code": error.code, "message": error.message}


def _counts(files: FileCounts) -> "api.VectorStoreObjectFileCounts":
    return {
        "in_progress": files.in_progress,
        "completed": files.completed,
        "failed": files.failed,
        "cancelled": files.cancelled,
        "total": files.total,
    }


def _progress(files: FileCounts) -> Literal["in_progress", "completed"]:
    return "in_progress" if files.in_progress else "completed"


def _outcome(files: FileCounts) -> Literal["in_progress", "completed", "failed"]:
    """Returns the status of a batch: `failed` only if all of its files failed."""
    has_failed = files.failed and files.failed == files.total
    return "failed" if has_failed else _progress(files)
