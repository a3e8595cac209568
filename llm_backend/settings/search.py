"""How files are read and found."""

from typing import Literal

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import Secret

__all__ = ["SearchSettings"]


class SearchSettings(BaseModel):
    """How files are read and found."""

    vector_stores: Literal["local", "upstream"] = Field(
        "local",
        description="Where new vector stores are kept, and listed; ids that are not known here are "
        "asked of the upstream, if there is one.",
    )
    qdrant_url: str | None = Field(
        None,
        description="URL of a Qdrant server for the vectors of vector stores, which several "
        "processes or servers need; an index in the data folder where unset.",
    )
    qdrant_api_key: Secret | None = Field(None, description="Key for the Qdrant server.")
    qdrant_prefix: str = Field(
        "llm-backend-", description="What the names of its collections begin with."
    )
    embedding_model: str | None = Field(
        None,
        description="Name of the model that makes the vectors of new vector stores, a local one or "
        "an upstream's; the first local one for embeddings where unset.",
    )
    query_model: str | None = Field(
        None,
        description="Name or alias of the served chat model that rewrites the queries of searches "
        "with `rewrite_query`; they are looked for as they are where unset.",
    )
    file_search: Literal["on-call", "always"] = Field(
        "on-call",
        description="When the tool `file_search` of a response is run: when the model calls it, or "
        "also before the model is asked, which suits small models.",
    )
    passages_limit: int = Field(
        3, ge=1, le=50, description="Passages that a search gives a model where it is not said."
    )
    retrieval_policy: Literal["system-message", "last-user-message"] = Field(
        "system-message",
        description="Where a chat's model reads the passages that were found: in the system "
        "message, or before the user's last one.",
    )
    retrieval_least_similarity: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Cosine that a passage has at least to be shown in a chat that does not say; "
        "one that was found by its words is shown without.",
    )
    extraction_timeout_s: float = Field(
        60, gt=0, description="Seconds that reading the text of one file may take."
    )
    extractors: int = Field(
        2,
        ge=2,
        le=64,
        description="Child processes of one API process that read files (PDF, DOCX, HTML) at once; "
        "one of them is always left to files that are read within a time slice.",
    )
    extraction_slice_s: float = Field(
        1,
        gt=0,
        description="Seconds of a processor's time that the reading of each file begins with. A "
        "file that takes more waits for others that do.",
    )
    ingestion_short_characters: int = Field(
        256 * 1024,
        ge=0,
        description="Characters of text up to which a file of a vector store is taken in among the "
        "short files. Longer files have a queue of their own.",
    )
    ingestion_timeout_s: float = Field(
        4 * 3600,
        gt=0,
        description="Seconds that taking one file into a vector store may take in all, with its "
        "embedding.",
    )
    extraction_memory_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=128 * 1024 * 1024,
        description="Memory that reading the text of one file may take.",
    )
    text_limit_bytes: int = Field(
        20 * 1024 * 1024, ge=1024, description="Text that one file may hold to be read."
    )
