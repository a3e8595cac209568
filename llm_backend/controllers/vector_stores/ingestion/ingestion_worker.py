"""File ingestion into vector stores, and removal from the vector index: background jobs.

A file is extracted and chunked. The chunks are embedded and put into the vector index in groups.
Then one transaction stores the chunks and marks the file as `completed`. A job of a killed server
is run again from the beginning. Point ids are deterministic, so points are overwritten and not
duplicated. Points are marked as incomplete until just before their chunks are stored, and searches
return no points without chunks.

While the embedding model is overloaded, the worker waits, so that a long file is not restarted.
If the model or the vector index stays unavailable, the job is retried later.

There are two queues, for short and for long files, so that long files do not block short ones. A
file begins in the queue of short files. If its extraction takes more than a time slice or its text
is long, it moves to the other queue and is ingested from the beginning.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.access import Ledger, Principal, RequestMeter
from llm_backend.backoff import backoff_delay_s
from llm_backend.controllers.services.embedders import TextEmbedder
from llm_backend.controllers.services.vector_store_services import VectorStoreServices
from llm_backend.controllers.vector_stores.ingestion.completeness import mark_incomplete
from llm_backend.errors import (
    ApiError,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    UpstreamError,
)
from llm_backend.extraction import (
    Chunking,
    ExtractionError,
    Extractor,
    NotShort,
    TextChunk,
    UnsupportedFile,
    split_into_chunks,
)
from llm_backend.search import IndexFailure, IndexPoint, text_keywords
from llm_backend.store import (
    AttributesChanged,
    FileError,
    FileStore,
    Job,
    Missing,
    ObjectMissing,
    RetryLater,
    StoredChunk,
    StoredVectorFile,
)

log = logging.getLogger(__name__)

ATTEMPTS_PER_FILE = 8  # over half an hour, while a model or the vector index is unavailable
ATTEMPTS_PER_REMOVAL = 1000  # about a week: points that stay use up places in searches
RETRY_S, RETRY_LIMIT_S = 10.0, 600.0  # delays between attempts, doubled each time
EMBEDDING_TRIES = 6  # tries of a group of chunks within an attempt, while a model is overloaded
PAUSE_S = 2.0  # between these tries, doubled each time: an engine that died starts in seconds
LONGEST_PAUSE_S = 60.0  # a longer pause ends the attempt instead

_OVERLOADED = (ServiceUnavailable, RateLimited)
_NAMES = uuid.UUID("5c0a3a55-6d3b-4d0e-9d3c-7a2f9f6a8e11")  # namespace of point ids
_POINTS_PER_WRITE = 64  # few enough to lock the index for some milliseconds only
_NUMBER_BYTES = 4  # of each number in a vector
_INDEX_GONE = (
    "The vectors of this store are in the vector index of a server that has not been seen for "
    "a day."
)


class _OtherIndex(Exception):
    """Raised if the store's vectors are in another index, whose server must run the job."""

    def __init__(self, index_name: str) -> None:
        super().__init__(index_name)
        self.index_name = index_name


@dataclass(frozen=True, kw_only=True)
class IngestionLimits:
    """Limits of one ingestion: `timeout_s` in all, and the longest text of a short file."""

    timeout_s: float = 4 * 3600
    short_characters: int = 256 * 1024


class Ingestion:
    """Ingestion worker; embedding usage is charged to the principal that added the file. The worker
    of short files (`only_short`) moves long files to the other queue."""

    def __init__(
        self,
        vector_stores: VectorStoreServices,
        files: FileStore,
        extractor: Extractor,
        ledger: Ledger,
        *,
        limits: IngestionLimits,
        only_short: bool,
    ) -> None:
        self._vector_stores = vector_stores
        self._files = files
        self._extractor = extractor
        self._ledger = ledger
        self._limits = limits
        self._only_short = only_short

    async def work(self, job: Job) -> None:
        """Ingests the file whose document is the job's subject."""
        try:
            file = await self._vector_stores.stores.file_of_document(job.subject)
        except Missing:  # the file has been removed from the store
            return
        if await self._has_other_affinity(job):
            await self._fail(job, FileError(code="server_error", message=_INDEX_GONE))
            return
        try:
            await self._ingest_or_fail(job, file)
        except (*_OVERLOADED, UpstreamError, IndexFailure) as error:
            log.warning("file_not_ingested_yet", extra={"reason": str(error)})
            raise RetryLater(_pause_s(error, job.attempt)) from error

    async def give_up(self, job: Job) -> None:
        """Fails the file after too many failed attempts."""
        message = "The server could not ingest the file; its log says why."
        await self._fail(job, FileError(code="server_error", message=message))

    async def _ingest_or_fail(self, job: Job, file: StoredVectorFile) -> None:
        """Ingests the file, or fails it for a reason that no other attempt would change."""
        try:
            async with asyncio.timeout(self._limits.timeout_s) as deadline:
                await self._ingest(job, file)
        except _OtherIndex as other_index:
            await self._vector_stores.stores.reassign_to_index(job, other_index.index_name)
        except NotShort:
            await self._vector_stores.stores.requeue_as_long(job)
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"The ingestion of the file takes longer than {self._limits.timeout_s:g} s."
            await self._fail(job, FileError(code="server_error", message=message))
        except UnsupportedFile as error:
            await self._fail(job, FileError(code="unsupported_file", message=str(error)))
        except NotFound as error:  # the embedding model's upstream does not know it
            await self._fail(job, FileError(code="server_error", message=str(error)))
        except (ExtractionError, InvalidRequest) as error:
            await self._fail(job, FileError(code="invalid_file", message=str(error)))
        except ObjectMissing as error:
            log.error("object_missing", extra={"file": file.id, "reason": str(error)})
            message = f"The bytes of the file `{file.id}` are missing on this server."
            await self._fail(job, FileError(code="server_error", message=message))
        except Missing:
            gone = FileError(code="invalid_file", message=f"The file `{file.id}` was deleted.")
            await self._fail(job, gone)

    async def _has_other_affinity(self, job: Job) -> bool:
        """True if the job needs another index than this process has. It was claimed because it has
        been due for a day."""
        return job.affinity not in (None, await self._vector_stores.index.name())

    def _meter(self, job: Job) -> RequestMeter | None:
        requested_by = job.details.get("asked_by")
        if not requested_by:  # a job from an older version, which did not record the principal
            return None
        return RequestMeter(self._ledger, Principal(**requested_by), kind="embeddings")

    async def _ingest(self, job: Job, file: StoredVectorFile) -> None:
        vector_stores, index = self._vector_stores, self._vector_stores.index
        store = await vector_stores.stores.get(file.store_id)
        if store.index_name not in (None, await index.name()):
            raise _OtherIndex(store.index_name)
        embedder = await vector_stores.embedders.get(store.embedding_model)
        if job.attempt > 1:
            await index.remove(store.id, file.document)
        chunks, meter = await self._chunks(file, embedder), self._meter(job)
        size_bytes = 0
        for start in range(0, len(chunks), _POINTS_PER_WRITE):
            group = chunks[start : start + _POINTS_PER_WRITE]
            vectors = await _embed(embedder, [chunk.text for chunk in group], meter)
            if store.dimensions is None and not start:
                await self._make_collection(store.id, len(vectors[0]))
            points = await asyncio.to_thread(_points, file, group, vectors, start)
            await index.upsert(store.id, points)
            size_bytes += sum(len(chunk.text.encode()) for chunk in group)
            size_bytes += _NUMBER_BYTES * sum(map(len, vectors))
        stored = await asyncio.to_thread(_stored_chunks, file, chunks)
        await self._complete(job, file, stored, size_bytes)

    async def _make_collection(self, store_id: str, dimensions: int) -> None:
        stores, index = self._vector_stores.stores, self._vector_stores.index
        name = await index.name()
        owner_name = await stores.claim_index(store_id, name)
        if owner_name != name:
            raise _OtherIndex(owner_name)
        await index.create(store_id, dimensions)
        await stores.set_dimensions(store_id, dimensions)

    async def _complete(
        self, job: Job, file: StoredVectorFile, chunks: Sequence[StoredChunk], size_bytes: int
    ) -> None:
        """Marks the points as complete, with the file's current attributes, and stores the
        chunks."""
        attributes = (await self._vector_stores.stores.file_of_document(file.document)).attributes
        while True:
            if chunks:  # without chunks there may be no collection
                await self._vector_stores.index.set_attributes(
                    file.store_id, file.document, attributes
                )
            try:
                await self._vector_stores.stores.complete(job, chunks, size_bytes, attributes)
                return
            except AttributesChanged as changed:
                attributes = changed.attributes

    async def _chunks(self, file: StoredVectorFile, embedder: TextEmbedder) -> list[TextChunk]:
        stored = await self._files.get(file.id)
        extracted = await self._extractor.extract(
            self._files.read(stored, 0, stored.size_bytes),
            filename=stored.filename,
            media_type=stored.media_type,
            only_short=self._only_short,
        )
        if self._only_short and len(extracted.text) > self._limits.short_characters:
            raise NotShort
        chunking = Chunking(
            max_tokens=file.chunking.max_tokens, overlap_tokens=file.chunking.overlap_tokens
        )
        return await split_into_chunks(extracted.text, extracted.format, chunking, embedder.count)

    async def _fail(self, job: Job, error: FileError) -> None:
        await self._vector_stores.stores.fail(job, error)


class Removal:
    """Deletes the rows of a deleted file or store, and removes their points from the vector
    index."""

    def __init__(self, vector_stores: VectorStoreServices) -> None:
        self._vector_stores = vector_stores

    async def work(self, job: Job) -> None:
        """Removes the points of the job's subject; later, while the index is unavailable."""
        store_id = job.details.get("store_id")
        try:
            rows_id = job.details.get("rows_id") or job.subject
            await self._vector_stores.stores.delete_rows(rows_id)
            if store_id is None:
                await self._vector_stores.index.drop(job.subject)
            else:
                await self._vector_stores.index.remove(store_id, job.subject)
        except IndexFailure as error:
            log.warning("points_not_removed_yet", extra={"reason": str(error)})
            raise RetryLater(_pause_s(error, job.attempt)) from error

    async def give_up(self, job: Job) -> None:
        """Leaves the points: searches drop them, but they use up places among the candidates."""


async def _embed(
    embedder: TextEmbedder, texts: Sequence[str], meter: RequestMeter | None
) -> list[list[float]]:
    """Returns the vectors of the texts. Waits and tries again while the model is overloaded."""
    for number in range(1, EMBEDDING_TRIES):
        try:
            return await embedder.embed(texts, meter)
        except _OVERLOADED as error:
            pause_s = _pause_s(error, number, PAUSE_S)
            if pause_s > LONGEST_PAUSE_S:
                raise
        await asyncio.sleep(pause_s)
    return await embedder.embed(texts, meter)


def _pause_s(error: Exception, number: int, first_s: float = RETRY_S) -> float:
    """Returns the delay before the next try: at least the one that the error asks for."""
    requested_s = error.retry_after_s if isinstance(error, ApiError) else None
    return max(requested_s or 0.0, backoff_delay_s(first_s, number, RETRY_LIMIT_S))


def _points(
    file: StoredVectorFile, chunks: Sequence[TextChunk], vectors: Sequence[list[float]], first: int
) -> list[IndexPoint]:
    return [
        IndexPoint(
            id=_point_id(file.document, first + index),
            document=file.document,
            vector=vector,
            words=text_keywords(chunk.text),
            attributes=mark_incomplete(file.attributes),
        )
        for index, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True))
    ]


def _stored_chunks(file: StoredVectorFile, chunks: Sequence[TextChunk]) -> list[StoredChunk]:
    return [
        StoredChunk(
            point_id=_point_id(file.document, number), text=chunk.text, repeated=chunk.repeated
        )
        for number, chunk in enumerate(chunks)
    ]


def _point_id(document: str, index: int) -> str:
    return str(uuid.uuid5(_NAMES, f"{document}/{index}"))
