"""A stored file as a value."""

from dataclasses import dataclass

from llm_backend.store.objects.blob import Content, size_of

__all__ = ["StoredFile"]


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file: what its client said of it, and where its bytes are."""

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
        """How many bytes it holds."""
        return size_of(self.content)
