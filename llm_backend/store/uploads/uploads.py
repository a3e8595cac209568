"""Store of uploads: files that arrive in parts, concurrently and in any order, joined without a
copy."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial

from llm_backend.store.chats.stored_chat import check_texts
from llm_backend.store.database.database import Database
from llm_backend.store.errors import WrongDigest
from llm_backend.store.files.stored_file import StoredFile
from llm_backend.store.objects import Blobs, Content, size_of
from llm_backend.store.uploads import upload_rows
from llm_backend.store.uploads.stored_upload import PartLimits, StoredPart, StoredUpload

_CLOSED_KEPT_S = 24 * 3600  # for which the row of an ended upload is kept


class UploadStore:
    """The uploads of a database, and `blobs`, which stores their parts."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        limit_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.blobs = blobs
        self._limit_bytes = limit_bytes  # of all files and uploads together
        self._database = database
        self._clock = clock

    async def add(self, upload: StoredUpload) -> None:
        """Create an upload. Raises `Unstorable`."""
        check_texts(upload.id, upload.purpose, upload.filename, upload.media_type)
        await self._database.write(upload_rows.add, upload=upload)

    async def check(self, id: str) -> StoredUpload:
        """The upload. Raises `Missing` or `UploadClosed` unless parts can be added."""
        return await self._database.read(upload_rows.check, id=id, now=self._now())

    async def add_part(self, part: StoredPart, limits: PartLimits) -> None:
        """Add a part whose blob is written; durable on return.

        Raises `Missing`, `UploadClosed`, `UploadFull`, `FilesFull`, `BlobGone`.
        """
        add_part = partial(upload_rows.add_part, part=part, limits=limits, now=self._now())
        await self._database.write(add_part, limit_bytes=self._limit_bytes)

    async def complete(
        self, id: str, part_ids: Sequence[str], *, file_id: str, md5: str | None = None
    ) -> tuple[StoredUpload, StoredFile]:
        """Make a file of the parts, in this order; parts that are not named are deleted.

        Raises `Missing`, `UploadClosed`, `BadParts`, and `WrongDigest` if `md5` is not that of the
        file.
        """
        if md5 is not None:
            content = await self._database.read(
                upload_rows.content_of, id=id, part_ids=part_ids, now=self._now()
            )
            found = await self._md5(content)
            if found != md5.lower():
                raise WrongDigest(f"The MD5 of the parts is {found}, not {md5[:64]}.")
        upload, file, keys = await self._database.write(
            upload_rows.complete, id=id, part_ids=part_ids, file_id=file_id, now=self._now()
        )
        await self.blobs.remove(keys)
        return upload, file

    async def cancel(self, id: str) -> StoredUpload:
        """Cancel an upload and delete its parts. Raises `Missing`, `UploadClosed`."""
        upload, keys = await self._database.write(upload_rows.cancel, id=id, now=self._now())
        await self.blobs.remove(keys)
        return upload

    async def expire(self) -> None:
        """Close the expired uploads; their bytes are removed by the next sweep of the blobs."""
        while await self._database.write(upload_rows.expire, now=self._now()):
            pass
        before = self._now() - _CLOSED_KEPT_S
        await self._database.write(upload_rows.forget, before=before)

    async def _md5(self, content: Content) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        async with aclosing(self.blobs.read(content, 0, size_of(content))) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(digest.update, piece)
        return digest.hexdigest()

    def _now(self) -> int:
        return int(self._clock())
