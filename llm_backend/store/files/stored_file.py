"""Value of a stored file."""

from dataclasses import dataclass

from llm_backend.store.objects.blob import Content, size_of


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file: its properties from the upload, and the blobs with its bytes."""

    id: str
    created_at: int  # unix seconds
    purpose: str
    filename: str
    media_type: str
    content: Content
    expires_at: int | None = None  # unix seconds
    owner: str | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of its content."""
        return size_of(self.content)
