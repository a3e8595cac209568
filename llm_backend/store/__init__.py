"""The store: one SQL model on SQLite or PostgreSQL, used through values of its own.

database/        SQLite and PostgreSQL, write queue, owners of rows
tables/          the tables
migrations/      schema and its revisions
objects/         blobs
chats/           chat completions
responses/       responses, also in the background
conversations/   conversations and items
files/           files
uploads/         files in parts
vector_stores/   vector stores, their files and texts
batches/         batches and their lines
jobs/            work that outlives its request
webhooks/        endpoints and deliveries
voices/          cloned voices, and consents
administration/  keys, projects, usage, audit log
retention/       deletion of old rows
row_values.py    rows as values, and the reverse; a row by a client's id
statement_parts.py  long lists in parts, for one statement each
keyset_pages.py  pages by value
json_text.py     JSON bodies as text
text_checks.py   checks of what columns can store
errors.py        errors of the store
"""

from llm_backend.unused_imports import block_imports

with block_imports(pickle=("HIGHEST_PROTOCOL",)):  # used only by `PickleType`, which no table has
    import sqlalchemy as sqlalchemy

from llm_backend.store.batches import (
    BATCH,
    BATCH_LINES,
    BatchEnd,
    BatchStatus,
    BatchStore,
    LineResult,
    Lines,
    StoredBatch,
    TokenCounts,
)
from llm_backend.store.chats.chats import ChatStore
from llm_backend.store.chats.detached_chat_leases import DetachedChatLeases, LeasedChat
from llm_backend.store.chats.search import ChatSearch, FoundChat
from llm_backend.store.chats.stored_chat import ChatStatus, NewChat, StoredChat, StoredMessage
from llm_backend.store.conversations.conversations import ConversationStore
from llm_backend.store.conversations.stored_conversation import StoredConversation, StoredItem
from llm_backend.store.database.database import Database
from llm_backend.store.database.ownership import Owner, as_owner, current_owner
from llm_backend.store.errors import (
    AttributesChanged,
    BadParts,
    BatchEnded,
    BlobGone,
    CannotOpen,
    ConsentInUse,
    Duplicate,
    EndpointsFull,
    Expired,
    FileInUse,
    FilesFull,
    LeaseLost,
    MetadataChanged,
    Missing,
    ObjectMissing,
    ObjectsUnavailable,
    OldSchema,
    QueueFull,
    ResponseNotInConversation,
    SecretsFull,
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
    VoicesFull,
    WrongDigest,
)
from llm_backend.store.files.files import FileStore, recount_files
from llm_backend.store.files.stored_file import StoredFile
from llm_backend.store.jobs import Job, JobKind, Jobs, NewJob, RetryLater, run_jobs
from llm_backend.store.keyset_pages import Page
from llm_backend.store.migrations.schema import (
    check_schema,
    current_and_needed_revision,
    migrate,
)
from llm_backend.store.objects import Blobs, Bucket
from llm_backend.store.responses.background import BackgroundStore
from llm_backend.store.responses.responses import ResponseStore
from llm_backend.store.responses.stored_response import (
    BackgroundResponseState,
    Events,
    StoredResponse,
)
from llm_backend.store.retention.retention import Retention, RetentionLimits
from llm_backend.store.retention.sweeper import sweep_forever
from llm_backend.store.uploads.stored_upload import (
    PartLimits,
    StoredPart,
    StoredUpload,
    UploadStatus,
)
from llm_backend.store.uploads.uploads import UploadStore
from llm_backend.store.vector_stores import (
    FileError,
    NewVectorFile,
    StoredChunk,
    StoredFileBatch,
    StoredVectorFile,
    StoredVectorStore,
    VectorStores,
)
from llm_backend.store.voices import StoredVoice, StoredVoiceConsent, VoiceStore
from llm_backend.store.webhooks import (
    DELIVERY,
    DeliveryLimit,
    EndpointChanges,
    FailedDelivery,
    StoredEndpoint,
    StoredFailure,
    WebhookStore,
    delivery_limits,
)

__all__ = [
    "BATCH",
    "BATCH_LINES",
    "DELIVERY",
    "AttributesChanged",
    "BackgroundResponseState",
    "BackgroundStore",
    "BadParts",
    "BatchEnd",
    "BatchEnded",
    "BatchStatus",
    "BatchStore",
    "BlobGone",
    "Blobs",
    "Bucket",
    "CannotOpen",
    "ChatSearch",
    "ChatStatus",
    "ChatStore",
    "ConsentInUse",
    "ConversationStore",
    "Database",
    "DeliveryLimit",
    "DetachedChatLeases",
    "Duplicate",
    "EndpointChanges",
    "EndpointsFull",
    "Events",
    "Expired",
    "FailedDelivery",
    "FileError",
    "FileInUse",
    "FileStore",
    "FilesFull",
    "FoundChat",
    "Job",
    "JobKind",
    "Jobs",
    "LeaseLost",
    "LeasedChat",
    "LineResult",
    "Lines",
    "MetadataChanged",
    "Missing",
    "NewChat",
    "NewJob",
    "NewVectorFile",
    "ObjectMissing",
    "ObjectsUnavailable",
    "OldSchema",
    "Owner",
    "Page",
    "PartLimits",
    "QueueFull",
    "ResponseNotInConversation",
    "ResponseStore",
    "Retention",
    "RetentionLimits",
    "RetryLater",
    "SecretsFull",
    "StoreDeadlock",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "StoredBatch",
    "StoredChat",
    "StoredChunk",
    "StoredConversation",
    "StoredEndpoint",
    "StoredFailure",
    "StoredFile",
    "StoredFileBatch",
    "StoredItem",
    "StoredMessage",
    "StoredPart",
    "StoredResponse",
    "StoredUpload",
    "StoredVectorFile",
    "StoredVectorStore",
    "StoredVoice",
    "StoredVoiceConsent",
    "TokenCounts",
    "Unfinished",
    "UnknownCursor",
    "UnknownSchema",
    "Unstorable",
    "UploadClosed",
    "UploadFull",
    "UploadStatus",
    "UploadStore",
    "VectorStores",
    "VoiceStore",
    "VoicesFull",
    "WebhookStore",
    "WrongDigest",
    "as_owner",
    "check_schema",
    "current_and_needed_revision",
    "current_owner",
    "delivery_limits",
    "migrate",
    "recount_files",
    "run_jobs",
    "sweep_forever",
]
