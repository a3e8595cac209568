"""Values of vector stores, their files and batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Attribute = str | float | bool
FileStatus = Literal["in_progress", "completed", "cancelled", "failed"]


@dataclass(frozen=True, kw_only=True)
class FileCounts:
    """Number of files in each state."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """Number of files in all states."""
        return self.in_progress + self.completed + self.failed + self.cancelled


@dataclass(frozen=True, kw_only=True)
class StoredVectorStore:
    """A vector store. `files` and `usage_bytes` are sums over its files; zero if these were not
    counted."""

    id: str
    created_at: int  # unix seconds
    name: str
    last_active_at: int  # unix seconds
    embedding_model: str
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_after_days: int | None = None
    expires_at: int | None = None  # unix seconds; set when the store is added, and at each use
    dimensions: int | None = None  # None before the first vector
    index_name: str | None = None  # the vector index that has its vectors
    is_emptied: bool = False
    files: FileCounts = FileCounts()
    usage_bytes: int = 0
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredChunking:
    """Sizes of a file's chunks, in tokens."""

    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, kw_only=True)
class FileError:
    """Error of a failed ingestion: the document's code, and a sentence."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


@dataclass(frozen=True, kw_only=True)
class NewVectorFile:
    """A file to add to a vector store. `document` names its points in the index; `requested_by` is
    JSON for the job that ingests it."""

    document: str
    file_id: str
    filename: str
    chunking: StoredChunking
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    requested_by: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredVectorFile:
    """A file in a vector store. Its `id` is that of the file, the only one that clients know."""

    id: str
    document: str
    store_id: str
    created_at: int  # unix seconds
    filename: str
    status: FileStatus
    chunking: StoredChunking
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: FileError | None = None
    usage_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class StoredFileBatch:
    """Files that were added to a vector store in one request."""

    id: str
    created_at: int  # unix seconds
    store_id: str
    is_cancelled: bool = False
    files: FileCounts = FileCounts()


@dataclass(frozen=True, kw_only=True)
class StoredChunk:
    """A piece of a file's text; its first `repeated` characters overlap with the piece before."""

    point_id: str
    text: str
    repeated: int


@dataclass(frozen=True, kw_only=True)
class FoundChunk:
    """A piece of a file, as a search returns it."""

    point_id: str
    text: str
    file_id: str
    filename: str
    attributes: Mapping[str, Attribute]
