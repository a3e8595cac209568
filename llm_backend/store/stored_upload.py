"""An upload in parts as a value."""

from dataclasses import dataclass
from enum import StrEnum

from llm_backend.store.objects.blob import Blob

__all__ = ["PartLimits", "StoredPart", "StoredUpload", "UploadStatus"]


class UploadStatus(StrEnum):
    """What has become of an upload."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class StoredUpload:
    """A file that is to be, once `size_bytes` of it have come in parts."""

    id: str
    created_at: int  # unix seconds
    purpose: str
    filename: str
    media_type: str
    size_bytes: int
    expires_at: int  # unix seconds: the upload, not the file
    file_lifetime_s: int | None = None  # from its completion on
    status: UploadStatus = UploadStatus.PENDING
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """Some of its bytes; the order of parts is said when they are joined."""

    id: str
    created_at: int  # unix seconds
    upload_id: str
    blob: Blob


@dataclass(frozen=True, kw_only=True)
class PartLimits:
    """How many parts an upload may have, and bytes in all of them, used or not."""

    parts: int
    total_bytes: int
