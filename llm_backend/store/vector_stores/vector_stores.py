"""Store of vector stores: rows in the database; the vectors are in the vector index."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_backend.store.database.database import Database
from llm_backend.store.jobs import Job, Jobs, job_rows
from llm_backend.store.keyset_pages import Order, Page, PageRequest
from llm_backend.store.text_checks import check_metadata, check_texts
from llm_backend.store.vector_stores import chunk_rows, file_batch_rows, file_rows, store_rows
from llm_backend.store.vector_stores.values import (
    Attribute,
    FileError,
    FoundChunk,
    NewVectorFile,
    StoredChunk,
    StoredFileBatch,
    StoredVectorFile,
    StoredVectorStore,
)

ACTIVE_EVERY_S = 60  # minimum interval between two records of use by searches


class VectorStores:
    """The vector stores of a database. Methods that take an id raise `Missing` for an unknown one.
    Changes of the vector index are left to jobs, which are added in the same transaction."""

    def __init__(
        self, database: Database, jobs: Jobs, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    async def add(self, store: StoredVectorStore, files: Sequence[NewVectorFile]) -> None:
        """Stores a vector store with its first files; durable on return. Raises `Unstorable`."""
        check_metadata(store.metadata)
        check_texts(store.name, store.description or "")
        _check(files)

        def work(connection: Any) -> None:
            store_rows.add(connection, store)
            file_rows.add(
                connection, store.id, files, now=self._clock(), lease_s=self._jobs.lease_s
            )

        await self._database.write(work)
        self._jobs.wake()

    async def get(self, id: str) -> StoredVectorStore:
        """The store with this id, without counts of its files."""
        return await self._database.read(store_rows.get, id=id)

    async def get_with_counts(self, id: str) -> StoredVectorStore:
        """The store with this id, with counts of its files; slow for many files."""
        return await self._database.read(store_rows.get_with_counts, id=id)

    async def list(
        self, *, after: str | None, before: str | None, limit: int, order: Order
    ) -> Page[StoredVectorStore]:
        """A page of the stores. Raises `UnknownCursor`."""
        request = PageRequest(after=after, before=before, limit=limit, order=order)
        return await self._database.read(store_rows.find, request=request)

    async def update(self, id: str, values: Mapping[str, Any]) -> StoredVectorStore:
        """Replaces `name`, `metadata` or `expires_after_days` of the store. Raises `Unstorable`,
        and `Expired` for new `expires_after_days` of an expired store."""
        check_metadata(values.get("metadata") or {})
        check_texts(values.get("name") or "")
        await self._database.write(store_rows.update_values, id=id, values=values, now=self.now)
        return await self.get_with_counts(id)

    async def delete(self, id: str) -> None:
        """Deletes the store; a job deletes its rows, and its collection in the vector index."""
        await self._database.write(store_rows.delete, id=id, now=self._clock())
        self._jobs.wake()

    async def delete_rows(self, id: str) -> None:
        """Deletes the rows of a deleted store, a bounded number in each transaction; does nothing
        for another id."""
        while await self._database.write(store_rows.delete_rows, id=id):
            pass

    async def expire(self) -> None:
        """Empties the expired stores, and deletes the rows of deleted ones: their jobs may wait for
        a vector index for long."""
        while await self._database.write(store_rows.empty_expired, now=self.now):
            pass
        while await self._database.write(store_rows.delete_rows):
            pass
        self._jobs.wake()

    async def record_use(self, store: StoredVectorStore) -> None:
        """Records that a search has used the store."""
        if self.now - store.last_active_at >= ACTIVE_EVERY_S:
            await self._database.write(store_rows.touch, id=store.id, now=self.now)

    async def claim_index(self, id: str, name: str) -> str:
        """The name of the vector index that has this store's vectors; set to `name` if there is
        none yet."""
        return await self._database.write(store_rows.claim_index, id=id, name=name)

    async def reassign_to_index(self, job: Job, index_name: str) -> None:
        """Releases the job to a process with this vector index. Raises `LeaseLost`."""
        await self._database.write(
            job_rows.reassign, job=job, affinity=index_name, now=self._clock()
        )

    async def requeue_as_long(self, job: Job) -> None:
        """Releases the job to the queue of long files. Raises `LeaseLost`."""
        await self._database.write(
            job_rows.change_kind, job=job, kind=store_rows.INGEST_LONG, now=self._clock()
        )
        self._jobs.wake()

    async def set_dimensions(self, id: str, dimensions: int) -> None:
        """Records the dimensions of the store's collection in the vector index."""
        await self._database.write(store_rows.set_dimensions, id=id, dimensions=dimensions)

    async def add_file(self, store_id: str, file: NewVectorFile) -> StoredVectorFile:
        """Adds a file, which a job ingests. Raises `Unstorable`, `Expired`."""
        _check([file])
        await self._database.write(
            file_rows.add,
            store_id=store_id,
            files=[file],
            now=self._clock(),
            lease_s=self._jobs.lease_s,
        )
        self._jobs.wake()
        return await self.file(store_id, file.file_id)

    async def file(self, store_id: str, file_id: str) -> StoredVectorFile:
        """A file of the store."""
        return await self._database.read(file_rows.get, store_id=store_id, file_id=file_id)

    async def file_of_document(self, document: str) -> StoredVectorFile:
        """The file whose points in the vector index have this `document`."""
        return await self._database.read(file_rows.by_document, document=document)

    async def files(
        self,
        store_id: str,
        *,
        after: str | None,
        before: str | None,
        limit: int,
        order: Order,
        status: str | None,
        batch_id: str | None = None,
    ) -> Page[StoredVectorFile]:
        """A page of the files of the store, or of a batch. Raises `UnknownCursor`."""
        request = PageRequest(after=after, before=before, limit=limit, order=order)

        def work(connection: Any) -> Page[StoredVectorFile]:
            batch_seq = None
            if batch_id is not None:
                batch_seq = file_batch_rows.seq_of(connection, store_id, batch_id)
            return file_rows.find(connection, store_id, request, status=status, batch_seq=batch_seq)

        return await self._database.read(work)

    async def set_attributes(
        self, store_id: str, file_id: str, attributes: Mapping[str, Attribute]
    ) -> StoredVectorFile:
        """Replaces the attributes of the file."""
        return await self._database.write(
            file_rows.set_attributes, store_id=store_id, file_id=file_id, attributes=attributes
        )

    async def delete_file(self, store_id: str, file_id: str) -> None:
        """Removes a file from the store; a job removes its points."""
        await self._database.write(
            file_rows.delete,
            store_id=store_id,
            file_id=file_id,
            now=self._clock(),
            lease_s=self._jobs.lease_s,
        )
        self._jobs.wake()

    async def text(self, store_id: str, file_id: str) -> str:
        """The text of the file."""
        return await self._database.read(file_rows.text_of, store_id=store_id, file_id=file_id)

    async def chunks(self, point_ids: Sequence[str]) -> Sequence[FoundChunk]:
        """The chunks of these points; missing ones are left out."""
        return await self._database.read(chunk_rows.texts_of, point_ids=point_ids)

    async def add_batch(
        self, store_id: str, batch_id: str, files: Sequence[NewVectorFile]
    ) -> StoredFileBatch:
        """Adds files in one batch. Raises `Unstorable`, `Expired`."""
        _check(files)
        await self._database.write(
            file_batch_rows.add,
            store_id=store_id,
            batch_id=batch_id,
            files=files,
            now=self._clock(),
            lease_s=self._jobs.lease_s,
        )
        self._jobs.wake()
        return await self.batch(store_id, batch_id)

    async def batch(self, store_id: str, batch_id: str) -> StoredFileBatch:
        """A batch of the store."""
        return await self._database.read(file_batch_rows.get, store_id=store_id, batch_id=batch_id)

    async def cancel_batch(self, store_id: str, batch_id: str) -> StoredFileBatch:
        """Cancels the ingestion of the batch's files that are not ingested yet."""
        batch = await self._database.write(
            file_batch_rows.cancel,
            store_id=store_id,
            batch_id=batch_id,
            now=self._clock(),
            lease_s=self._jobs.lease_s,
        )
        self._jobs.wake()
        return batch

    async def complete(
        self,
        job: Job,
        chunks: Sequence[StoredChunk],
        usage_bytes: int,
        attributes: Mapping[str, Attribute],
    ) -> None:
        """Finishes the ingestion of the job's file with these `attributes`, and the job. Raises
        `LeaseLost`, and `AttributesChanged` if they were replaced meanwhile."""
        await self._database.write(
            file_rows.complete,
            job=job,
            chunks=chunks,
            usage_bytes=usage_bytes,
            attributes=attributes,
        )

    async def fail(self, job: Job, error: FileError) -> None:
        """Fails the ingestion of the job's file, and finishes the job. Raises `LeaseLost`."""
        await self._database.write(
            file_rows.fail, job=job, error=error, now=self._clock(), lease_s=self._jobs.lease_s
        )


def _check(files: Sequence[NewVectorFile]) -> None:
    for file in files:
        texts = [one for one in file.attributes.values() if isinstance(one, str)]
        check_texts(file.file_id, *file.attributes, *texts)
