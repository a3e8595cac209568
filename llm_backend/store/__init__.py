"""What is remembered: one SQL model, on SQLite or PostgreSQL, spoken to in values of our own."""

from llm_backend.store.background import Background
from llm_backend.store.batches import (
    BATCH,
    BATCH_LINES,
    BatchEnd,
    Batches,
    BatchStatus,
    LineResult,
    Lines,
    StoredBatch,
    TokenCounts,
)
from llm_backend.store.chats import Chats
from llm_backend.store.conversations import Conversations
from llm_backend.store.database import Database
from llm_backend.store.errors import (
    BadParts,
    BatchEnded,
    BlobGone,
    CannotOpen,
    Duplicate,
    FileInUse,
    FilesFull,
    LeaseLost,
    Missing,
    ObjectsUnavailable,
    OldSchema,
    StoreDeadlock,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    Unfinished,
    UnknownCursor,
    UnknownSchema,
    Unstorable,
    UploadClosed,
    UploadFull,
    WrongDigest,
)
from llm_backend.store.files import Files
from llm_backend.store.jobs import Job, JobKind, Jobs, JobWorker, NewJob, TryLater
from llm_backend.store.objects import Blob, Blobs, Bucket
from llm_backend.store.ownership import Owner, in_the_name_of
from llm_backend.store.pages import Order, Page
from llm_backend.store.responses import Responses
from llm_backend.store.retention import Retention, RetentionLimits
from llm_backend.store.schema import check_schema, migrate, revisions
from llm_backend.store.stored_chat import ChatStatus, StoredChat, StoredMessage
from llm_backend.store.stored_file import StoredFile
from llm_backend.store.stored_response import (
    Events,
    Standing,
    StoredConversation,
    StoredItem,
    StoredResponse,
)
from llm_backend.store.stored_upload import PartLimits, StoredPart, StoredUpload, UploadStatus
from llm_backend.store.sweeping import sweep_forever
from llm_backend.store.uploads import Uploads
from llm_backend.store.vector_stores import (
    FileError,
    FoundChunk,
    NewVectorFile,
    StoredChunk,
    StoredFileBatch,
    StoredVectorFile,
    StoredVectorStore,
    VectorStores,
)

__all__ = [
    "BATCH",
    "BATCH_LINES",
    "Background",
    "BadParts",
    "BatchEnd",
    "BatchEnded",
    "BatchStatus",
    "Batches",
    "Blob",
    "BlobGone",
    "Blobs",
    "Bucket",
    "CannotOpen",
    "ChatStatus",
    "Chats",
    "Conversations",
    "Database",
    "Duplicate",
    "Events",
    "FileError",
    "FileInUse",
    "Files",
    "FilesFull",
    "FoundChunk",
    "Job",
    "JobKind",
    "JobWorker",
    "Jobs",
    "LeaseLost",
    "LineResult",
    "Lines",
    "Missing",
    "NewJob",
    "NewVectorFile",
    "ObjectsUnavailable",
    "OldSchema",
    "Order",
    "Owner",
    "Page",
    "PartLimits",
    "Responses",
    "Retention",
    "RetentionLimits",
    "Standing",
    "StoreDeadlock",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "StoredBatch",
    "StoredChat",
    "StoredChunk",
    "StoredConversation",
    "StoredFile",
    "StoredFileBatch",
    "StoredItem",
    "StoredMessage",
    "StoredPart",
    "StoredResponse",
    "StoredUpload",
    "StoredVectorFile",
    "StoredVectorStore",
    "TokenCounts",
    "TryLater",
    "Unfinished",
    "UnknownCursor",
    "UnknownSchema",
    "Unstorable",
    "UploadClosed",
    "UploadFull",
    "UploadStatus",
    "Uploads",
    "VectorStores",
    "WrongDigest",
    "check_schema",
    "in_the_name_of",
    "migrate",
    "revisions",
    "sweep_forever",
]
