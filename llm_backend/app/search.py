"""File search: extractor, vector index, and the tools over both."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_backend.app.stores import Stores
from llm_backend.backends.images.image_models import ImageModels
from llm_backend.backends.registry import Registry
from llm_backend.backends.web_files import WebFiles
from llm_backend.controllers.responses.loop.file_search_tool import FileSearchKind
from llm_backend.controllers.responses.loop.image_tool import ImageGenerationKind
from llm_backend.controllers.responses.loop.mcp_tools import McpKind
from llm_backend.controllers.services.embedders import Embedders, TextEmbedder
from llm_backend.controllers.services.file_texts import FILE_WORDS, FileTexts
from llm_backend.controllers.services.server_tools import ServerTools
from llm_backend.controllers.services.vector_store_services import VectorStoreServices
from llm_backend.controllers.vector_stores.upstream_embedder import OPERATION as EMBEDDING
from llm_backend.controllers.vector_stores.upstream_embedder import upstream_embedder
from llm_backend.extraction import ExtractionLimits, Extractor
from llm_backend.extras import install_command, is_installed
from llm_backend.search import EmbeddedIndex, VectorIndex
from llm_backend.settings import Settings, SettingsError
from llm_backend.temporary_files import TemporaryFiles

if TYPE_CHECKING:  # its HTTP client is imported only with upstreams
    from llm_backend.backends.upstream.pool import UpstreamPool


@dataclass(frozen=True, kw_only=True)
class SearchServices:
    """Services that extract text from files and search it."""

    extractor: Extractor
    file_texts: FileTexts
    vector_stores: VectorStoreServices
    server_tools: ServerTools


@asynccontextmanager
async def open_index(settings: Settings) -> AsyncIterator[VectorIndex | None]:
    """Opens the vector index; None with several processes and no `qdrant_url`: only one process can
    open the index in the data folder."""
    if settings.vector_stores == "upstream" and not settings.has_relay_upstream:
        raise SettingsError(
            "The setting `vector_stores` is `upstream`, but no upstream is configured: set its key."
        )
    index = _vector_index(settings)
    try:
        yield index
    finally:
        if index is not None:
            await index.close()


def build_search(
    settings: Settings,
    stores: Stores,
    vectors: VectorIndex | None,
    registry: Registry,
    upstream: "UpstreamPool | None",
    image_models: ImageModels,
    temporary_files: TemporaryFiles,
) -> SearchServices:
    """Builds the search services over open stores and an open index."""
    embedders = Embedders(
        registry,
        preferred=settings.embedding_model,
        find_upstream=lambda name: _upstream_embedder(upstream, name),
    )
    extractor = _extractor(settings, temporary_files)
    vector_stores = VectorStoreServices(
        stores=stores.vector_stores, vectors=vectors, embedders=embedders
    )
    return SearchServices(
        extractor=extractor,
        file_texts=FileTexts(stores.files, extractor, _web_files(settings)),
        vector_stores=vector_stores,
        server_tools=_server_tools(settings, vector_stores, registry, image_models),
    )


def _upstream_embedder(upstream: "UpstreamPool | None", model: str) -> TextEmbedder | None:
    if upstream is None or not upstream.serves(model, EMBEDDING):
        return None
    return upstream_embedder(upstream, model)


def _vector_index(settings: Settings) -> VectorIndex | None:
    if settings.qdrant_url is not None:
        if not is_installed("qdrant"):
            raise SettingsError(
                f"The setting `qdrant_url` needs Qdrant's client: {install_command('qdrant')}."
            )
        qdrant = importlib.import_module("llm_backend.search.qdrant")
        key = settings.qdrant_api_key
        index: VectorIndex = qdrant.QdrantIndex.at(
            settings.qdrant_url,
            api_key=key and key.get_secret_value(),
            prefix=settings.qdrant_prefix,
        )
        return index
    return EmbeddedIndex(settings.data_dir / "vectors") if settings.processes == 1 else None


def _extractor(settings: Settings, files: TemporaryFiles) -> Extractor:
    return Extractor(
        ExtractionLimits(
            timeout_s=settings.extraction_timeout_s,
            memory_bytes=settings.extraction_memory_bytes,
            text_bytes=settings.text_limit_bytes,
            slice_s=settings.extraction_slice_s,
            processes=settings.extractors,
        ),
        writing=lambda: files.writing("document"),
    )


def _web_files(settings: Settings) -> WebFiles:
    return WebFiles(
        settings.file_hosts,
        messages=FILE_WORDS,
        limit_bytes=settings.fetched_file_limit_bytes,
        timeout_s=settings.file_timeout_s,
    )


def _server_tools(
    settings: Settings,
    vector_stores: VectorStoreServices,
    registry: Registry,
    image_models: ImageModels,
) -> ServerTools:
    """Returns the tools that this server runs while it answers a response."""
    mcp = McpKind(settings.mcp_servers, timeout_s=settings.mcp_timeout_s)
    searches_first = settings.file_search == "always"
    file_search = FileSearchKind(
        vector_stores, limit=settings.passages_limit, searches_first=searches_first
    )
    image_generation = ImageGenerationKind(
        image_models,
        registry,
        pixels_limit=settings.drawn_pixels_limit,
        image_pixels=settings.image_limit_pixels,
    )
    return ServerTools([mcp, file_search, image_generation])
