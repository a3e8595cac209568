"""Vector stores, their files and batches, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Attribute",
    "Chunking",
    "FileCounts",
    "FileError",
    "FileStatus",
    "FoundChunk",
    "NewVectorFile",
    "StoredChunk",
    "StoredFileBatch",
    "StoredVectorFile",
    "StoredVectorStore",
]

DAY_S = 86_400

Attribute = str | float | bool
FileStatus = Literal["in_progress", "completed", "cancelled", "failed"]


@dataclass(frozen=True, kw_only=True)
class FileCounts:
    """How many files are in which state."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.in_progress + self.completed + self.failed + self.cancelled


@dataclass(frozen=True, kw_only=True)
class StoredVectorStore:
    """One vector store, and what its files add up to where these were counted."""

    id: str
    created_at: int  # unix seconds
    name: str
    last_active_at: int  # unix seconds
    embedding_model: str
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_after_days: int | None = None
    dimensions: int | None = None  # None before anything is in the vector index
    index_name: str | None = None  # of the vector index that alone has its vectors
    is_emptied: bool = False
    files: FileCounts = FileCounts()
    usage_bytes: int = 0
    owner: str | None = None

    @property
    def expires_at(self) -> int | None:
        """Unix seconds."""
        if self.expires_after_days is None:
            return None
        return self.last_active_at + self.expires_after_days * DAY_S


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How a file is cut, in tokens."""

    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, kw_only=True)
class FileError:
    """Why a file could not be taken in: the document's code, and a sentence."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


@dataclass(frozen=True, kw_only=True)
class NewVectorFile:
    """A file that is to be in a vector store; `document` will name its points in the index.
    `asked_by` is told to who takes it in: JSON."""

    document: str
    file_id: str
    filename: str
    chunking: Chunking
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    asked_by: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredVectorFile:
    """A file in a vector store. `id` is the file's: clients have no other."""

    id: str
    document: str
    store_id: str
    created_at: int  # unix seconds
    filename: str
    status: FileStatus
    chunking: Chunking
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: FileError | None = None
    usage_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class StoredFileBatch:
    """Files that were added to a vector store together."""

    id: str
    created_at: int  # unix seconds
    store_id: str
    is_cancelled: bool = False
    files: FileCounts = FileCounts()


@dataclass(frozen=True, kw_only=True)
class StoredChunk:
    """A piece of a file's text; its first `repeated` characters are in the one before, too."""

    point_id: str
    text: str
    repeated: int


@dataclass(frozen=True, kw_only=True)
class FoundChunk:
    """A piece of a file, as a search shows it."""

    point_id: str
    text: str
    file_id: str
    filename: str
    attributes: Mapping[str, Attribute]
