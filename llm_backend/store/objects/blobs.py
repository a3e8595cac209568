"""Blobs: streams of bytes written as blocks and read by range. The blocks of a failed write are
deleted later, as orphans.

The order of the writes guarantees this: first a row that marks the blob as an orphan, then the
blocks, last the row that claims the blob, in one transaction with the removal of the mark. A block
is written whole or not at all, so no multipart upload is ever left open.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from secrets import token_hex

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.store.database.database import Database
from llm_backend.store.errors import StoreError
from llm_backend.store.objects import orphans
from llm_backend.store.objects.blob import Blob, Content, slices
from llm_backend.store.objects.bucket import Bucket

BLOCK_BYTES = 4 * 1024 * 1024  # a stream that is read holds one block, one that is written two
GRACE_S = 3600  # after which an unclaimed blob is deleted unless it is still being written
FAILURES_LIMIT = 10  # of one sweep: each may take as long as the bucket's timeout

log = logging.getLogger(__name__)


class Blobs:
    """The blobs of a database and of its bucket."""

    def __init__(
        self,
        database: Database,
        bucket: Bucket,
        *,
        clock: Callable[[], float] = time.time,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._database = database
        self._bucket = bucket
        self._clock = clock
        self._block_bytes = block_bytes
        self._sweep_cursor = ""  # the last key of the last sweep
        self._removals = BackgroundTasks()

    @asynccontextmanager
    async def writing(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[Blob, None]:
        """Yields a new, durable blob of these bytes, which a row must claim before the context
        ends. The blob is removed if the context raises. Raises `StoreUnavailable`, before the
        first piece is read if the database is down.
        """
        key = token_hex(16)
        async with AsyncExitStack() as failing:
            await self._database.insert(orphans.add, key=key, due_at=self._due_at())
            failing.callback(self._drop_in_background, key)
            yield await self._write(key, pieces)
            failing.pop_all()

    async def read(self, content: Content, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yields the bytes from `start` until before `end`. Raises `ObjectsUnavailable`,
        `ObjectMissing`."""
        for one in slices(content, start, end):
            yield await self._bucket.get(one.name, one.start, one.length)

    async def sweep(self) -> None:
        """Removes some of the orphans: blobs that were not claimed in time or could not be removed
        before. The next sweep continues after the last tried key, so that blobs whose removal fails
        do not block the others."""
        mark = partial(orphans.mark_due_deleted, now=int(self._clock()), after=self._sweep_cursor)
        keys = await self._database.write(mark)
        tried = await self.remove(keys)
        self._sweep_cursor = keys[tried - 1] if tried else ""

    async def wait_idle(self) -> None:
        """Waits until the removals in the background have ended."""
        await self._removals.wait_idle()

    async def remove(self, keys: Sequence[str]) -> int:
        """Removes released blobs; returns the number of those tried. Stops after `FAILURES_LIMIT`
        failures. Blobs that cannot be removed now are left to a later sweep."""
        removed: list[str] = []
        tried = 0
        for tried, key in enumerate(keys, 1):
            try:
                await self._bucket.remove(key)
                removed.append(key)
            except StoreError as error:
                log.warning("blob_not_removed", extra={"reason": str(error)})
            if tried - len(removed) == FAILURES_LIMIT:
                break
        await self._forget(removed)
        return tried

    async def _forget(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        log.info("blobs_removed", extra={"number": len(keys)})
        try:
            await self._database.write(orphans.forget, keys=keys)
        except StoreError as error:  # the next sweep removes them once more
            log.warning("blobs_not_forgotten", extra={"reason": str(error)})

    async def _write(self, key: str, pieces: AsyncIterator[bytes]) -> Blob:
        buffer, number, size_bytes, postponed_at = bytearray(), 0, 0, self._clock()
        async for piece in pieces:
            buffer += piece
            size_bytes += len(piece)
            while len(buffer) >= self._block_bytes:
                await self._bucket.put(f"{key}/{number}", bytes(buffer[: self._block_bytes]))
                del buffer[: self._block_bytes]
                number += 1
            if self._clock() - postponed_at > GRACE_S / 4:
                postponed_at = self._clock()
                await self._database.write(orphans.postpone, key=key, due_at=self._due_at())
        if buffer:
            await self._bucket.put(f"{key}/{number}", bytes(buffer))
        return Blob(key=key, size_bytes=size_bytes, block_bytes=self._block_bytes)

    def _due_at(self) -> int:
        return int(self._clock()) + GRACE_S

    async def _drop(self, key: str) -> None:
        """Removes a blob unless a row has claimed it."""
        try:
            is_orphan = await self._database.write(orphans.mark_deleted, key=key)
        except StoreError as error:  # it stays an orphan, for the next sweep
            log.warning("blob_not_dropped", extra={"reason": str(error)})
            return
        if is_orphan:
            await self.remove([key])

    def _drop_in_background(self, key: str) -> None:
        self._removals.start(self._drop(key))
