"""Values of uploads and their parts."""

from dataclasses import dataclass
from enum import StrEnum

from llm_backend.store.objects.blob import Blob


class UploadStatus(StrEnum):
    """State of an upload."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class StoredUpload:
    """An upload: a file that is complete once `size_bytes` of it have arrived in parts."""

    id: str
    created_at: int  # unix seconds
    purpose: str
    filename: str
    media_type: str
    size_bytes: int
    expires_at: int  # unix seconds; of the upload, not of the file
    file_lifetime_s: int | None = None  # from its completion on
    status: UploadStatus = UploadStatus.PENDING
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """One part of an upload; the order of parts is given when they are joined."""

    id: str
    created_at: int  # unix seconds
    upload_id: str
    blob: Blob


@dataclass(frozen=True, kw_only=True)
class PartLimits:
    """Limits of an upload: number of parts, and bytes in all of them, used or not."""

    parts: int
    total_bytes: int
