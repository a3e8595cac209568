"""Store of uploaded files: rows in the database, their bytes in the object store."""

import time
from collections.abc import AsyncGenerator, Callable
from functools import partial

from llm_backend.store.database.database import Database
from llm_backend.store.files import file_byte_total, file_rows
from llm_backend.store.files.stored_file import StoredFile
from llm_backend.store.jobs.jobs import LEASE_S
from llm_backend.store.keyset_pages import Order, Page, PageRequest
from llm_backend.store.objects import Blobs
from llm_backend.store.text_checks import check_texts


class FileStore:
    """The stored files of a database, with their bytes in `blobs`. `job_lease_s` is the lease of a
    job: a deletion ends the jobs that ingest the file."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        limit_bytes: int | None = None,
        job_lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.blobs = blobs
        self._limit_bytes = limit_bytes
        self._job_lease_s = job_lease_s
        self._database = database
        self._clock = clock

    async def add(self, file: StoredFile) -> None:
        """Stores a file whose blobs are already written; durable on return.

        Raises `BlobGone`, `FilesFull`, and `Unstorable` for a text that no column can store.
        """
        check_texts(file.id, file.purpose, file.filename, file.media_type, file.owner or "")
        add = partial(file_rows.add, file=file, limit_bytes=self._limit_bytes)
        await self._database.write(add)

    async def check_capacity(self, added_bytes: int = 0) -> None:
        """Raises `FilesFull` if `added_bytes` more would exceed the limit of the files, uploads
        and voices of all owners. The limit is checked again when the file is stored."""
        if self._limit_bytes is None:
            return
        limit_bytes = self._limit_bytes
        check = partial(
            file_byte_total.check_capacity, added_bytes=added_bytes, limit_bytes=limit_bytes
        )
        await self._database.read(check)

    async def get(self, id: str) -> StoredFile:
        """The file with this id. Raises `Missing`, also for an expired file."""
        return await self._database.read(file_rows.get, id=id, now=self._now())

    async def list(
        self,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
    ) -> Page[StoredFile]:
        """A page of the files with this `purpose`, by time of creation. Raises `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(
            file_rows.find, request=request, purpose=purpose, now=self._now()
        )

    def read(self, file: StoredFile, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of the file from `start` until before `end`. Raises `ObjectsUnavailable`,
        `ObjectMissing`."""
        return self.blobs.read(file.content, start, end)

    async def delete(self, id: str) -> None:
        """Deletes the file and its bytes. Raises `Missing`, `FileInUse`."""
        keys = await self._database.write(
            file_rows.delete, id=id, now=self._now(), lease_s=self._job_lease_s
        )
        await self.blobs.remove(keys)

    async def expire(self) -> None:
        """Deletes the expired files; their bytes are removed by the next sweep of the blobs."""
        while await self._database.write(
            file_rows.expire, now=self._now(), lease_s=self._job_lease_s
        ):
            pass

    def _now(self) -> int:
        return int(self._clock())


async def recount_files(database: Database) -> tuple[int, int]:
    """Recounts the bytes of files, parts of uploads, voices and consents; returns the stored total
    before, and the true one."""
    return await database.write(file_byte_total.recount)
