"""Services: the dependencies that every controller receives, built by `app`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_backend.access.wiring import Access
from llm_backend.backends.images.image_models import ImageModels
from llm_backend.backends.local.token_files import TokenFiles
from llm_backend.backends.registry import Registry
from llm_backend.backends.speech import SpeechSynthesizer
from llm_backend.backends.transcription import LocalTranscription
from llm_backend.backends.webhook_sender import WebhookSender
from llm_backend.contract import Operations
from llm_backend.contract.validation import Validators
from llm_backend.controllers.services.background_responses import BackgroundResponses
from llm_backend.controllers.services.chat_recorder import ChatRecorder
from llm_backend.controllers.services.detached_chats import DetachedChats
from llm_backend.controllers.services.detached_peers import DetachedPeers
from llm_backend.controllers.services.error_buffer import RecentErrors
from llm_backend.controllers.services.file_texts import FileTexts
from llm_backend.controllers.services.input_images import InputImages
from llm_backend.controllers.services.listed_items import ListedItems
from llm_backend.controllers.services.mcp_endpoint import McpEndpoint
from llm_backend.controllers.services.server_tools import ServerTools
from llm_backend.controllers.services.session_limit import SessionLimit
from llm_backend.controllers.services.status_board import StatusBoard
from llm_backend.controllers.services.stored_responses import StoredResponses
from llm_backend.controllers.services.unknown_field_reporter import UnknownFieldReporter
from llm_backend.controllers.services.vector_store_services import VectorStoreServices
from llm_backend.extraction import Extractor
from llm_backend.metrics import Metrics
from llm_backend.settings import Settings
from llm_backend.store import (
    BatchStore,
    ChatSearch,
    Database,
    FileStore,
    Jobs,
    UploadStore,
    VoiceStore,
    WebhookStore,
)
from llm_backend.temporary_files import TemporaryFiles

if TYPE_CHECKING:  # its HTTP client costs 10 MB, which a server without an upstream does not pay
    from llm_backend.backends.images.image_servers import ImageServers
    from llm_backend.backends.upstream.pool import UpstreamPool


@dataclass(frozen=True, kw_only=True)
class Services:
    """Dependencies of one server's controllers. `document` returns the OpenAPI document as JSON
    text, `choose_personality` sets the default personality of a model, and `draining` is set when
    the server is going to shut down."""

    settings: Settings
    draining: asyncio.Event
    registry: Registry
    choose_personality: Callable[[str, str], Awaitable[None]]
    database: Database
    chat_recorder: ChatRecorder
    detached_chats: DetachedChats
    detached_peers: DetachedPeers
    chat_search: ChatSearch
    files: FileStore
    extractor: Extractor
    vector_stores: VectorStoreServices
    responses: StoredResponses
    listed_items: ListedItems
    background: BackgroundResponses
    mcp: McpEndpoint
    file_texts: FileTexts
    input_images: InputImages
    uploads: UploadStore
    voices: VoiceStore
    jobs: Jobs
    batches: BatchStore
    webhooks: WebhookStore
    webhook_sender: WebhookSender
    token_files: TokenFiles
    server_tools: ServerTools
    metrics: Metrics
    status: StatusBoard
    temporary_files: TemporaryFiles
    recent_errors: RecentErrors
    access: Access
    document: Callable[[], bytes]
    operations: Operations
    unknown_fields: UnknownFieldReporter
    synthesizer: SpeechSynthesizer
    image_models: ImageModels
    transcriber: LocalTranscription
    validators: Validators
    session_limit: SessionLimit
    upstreams: "UpstreamPool | None" = None
    image_servers: "ImageServers | None" = None
