"""Settings of text extraction, vector stores and file search."""

from typing import Literal

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import Secret


class SearchSettings(BaseModel):
    """Text extraction, vector stores and file search."""

    vector_stores: Literal["local", "upstream"] = Field(
        "local",
        description="Where vector stores are created and listed: `local` or `upstream`. Requests "
        "for unknown ids are relayed to the upstream, if there is one.",
    )
    qdrant_url: str | None = Field(
        None,
        description="URL of a Qdrant server for the vectors of vector stores, which several "
        "processes or servers need; an index in the data folder if unset.",
    )
    qdrant_api_key: Secret | None = Field(None, description="Key for the Qdrant server.")
    qdrant_prefix: str = Field(
        "llm-backend-", description="Prefix of the names of the collections in Qdrant."
    )
    embedding_model: str | None = Field(
        None,
        description="Name of the model that embeds the files of new vector stores, a local one or "
        "an upstream's; the first local embedding model if unset.",
    )
    query_model: str | None = Field(
        None,
        description="Name or alias of the served chat model that rewrites the queries of searches "
        "with `rewrite_query`; queries are not rewritten if unset.",
    )
    file_search: Literal["on-call", "always"] = Field(
        "on-call",
        description="When a response's `file_search` runs: `on-call` when the model calls it, "
        "`always` also before the model is called first, which suits small models.",
    )
    passages_limit: int = Field(
        3,
        ge=1,
        le=50,
        description="Number of passages that a search returns to a model, unless the request sets "
        "it.",
    )
    retrieval_policy: Literal["system-message", "last-user-message"] = Field(
        "system-message",
        description="Place of the found passages in a chat: in the system message, or before the "
        "last user message.",
    )
    retrieval_least_similarity: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Minimum cosine similarity of a passage in a chat, unless the request sets "
        "it; keyword matches need none.",
    )
    extraction_timeout_s: float = Field(
        60, gt=0, description="Timeout in seconds for extracting the text of one file."
    )
    extractors: int = Field(
        2,
        ge=2,
        le=64,
        description="Child processes of one API process that extract text of files (PDF, DOCX, "
        "HTML) concurrently; one of them is reserved for files that need no more than a time "
        "slice.",
    )
    extraction_slice_s: float = Field(
        1,
        gt=0,
        description="CPU seconds of the first time slice of each file. A file that needs more "
        "waits for files that do not.",
    )
    ingestion_short_characters: int = Field(
        256 * 1024,
        ge=0,
        description="Maximum number of characters of text for which a file of a vector store is "
        "ingested in the queue of short files. Longer files have a queue of their own.",
    )
    ingestion_timeout_s: float = Field(
        4 * 3600,
        gt=0,
        description="Timeout in seconds of each attempt to ingest a file into a vector store, with "
        "its embedding. A file that takes longer fails.",
    )
    extraction_memory_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=128 * 1024 * 1024,
        description="Memory limit for extracting the text of one file.",
    )
    text_limit_bytes: int = Field(
        20 * 1024 * 1024, ge=1024, description="Maximum size of the text of one file."
    )
