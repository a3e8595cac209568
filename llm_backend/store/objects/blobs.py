"""Blobs: streams of bytes into blocks, and back by range; nothing is left behind by who fails.

The order that keeps this so: the note, the blocks, then the row that takes the blob up together
with the note. A block is written whole or not at all, so no multipart upload is ever left open.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from secrets import token_hex

from llm_backend.store.database import Database
from llm_backend.store.errors import StoreError
from llm_backend.store.objects import loose
from llm_backend.store.objects.blob import Blob, Content, slices
from llm_backend.store.objects.bucket import Bucket

__all__ = ["Blobs"]

BLOCK_BYTES = 4 * 1024 * 1024  # what one stream holds in memory, read or written
GRACE_S = 3600  # after which a blob that nobody goes on writing is given up
FAILURES_LIMIT = 10  # of one sweep: each may take as long as the bucket lets one wait

log = logging.getLogger(__name__)


class Blobs:
    """The blobs of a database and the bucket beside it."""

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
        self._swept_to = ""  # the key that the last sweep came to
        self._behind: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def writing(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[Blob, None]:
        """A new blob of these bytes, durable; a row takes it up within the block.

        It is removed where the block is left by an exception. Raises `StoreUnavailable`, before
        the first piece is asked for where the database is down.
        """
        key = token_hex(16)
        async with AsyncExitStack() as failing:
            await self._database.insert(partial(loose.note, key=key, due_at=self._due_at()))
            failing.callback(self._drop_behind, key)
            yield await self._write(key, pieces)
            failing.pop_all()

    async def read(self, content: Content, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` until before `end`. Raises `ObjectsUnavailable`."""
        for some in slices(content, start, end):
            yield await self._bucket.get(some.name, some.start, some.length)

    async def remove(self, keys: Sequence[str]) -> None:
        """Removes blobs that have been let go; what fails now is left to a later sweep."""
        await self._remove(keys)

    async def sweep(self) -> None:
        """Removes what nobody has taken up in time, and what could not be removed before: some of
        it, and the next sweep goes on behind, so that what cannot be removed keeps nobody up."""
        due = partial(loose.doom_due, now=int(self._clock()), after=self._swept_to)
        keys = await self._database.write(due)
        tried = await self._remove(keys)
        self._swept_to = keys[tried - 1] if tried else ""

    async def settle(self) -> None:
        """Waits until all that is being removed behind is removed."""
        while self._behind:
            await asyncio.wait(self._behind)

    async def _remove(self, keys: Sequence[str]) -> int:
        """How many were tried: all, unless so many fail that the others would, too."""
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
            await self._database.write(partial(loose.forget, keys=keys))
        except StoreError as error:  # they are removed once more
            log.warning("blobs_not_forgotten", extra={"reason": str(error)})

    async def _write(self, key: str, pieces: AsyncIterator[bytes]) -> Blob:
        held, number, size_bytes, told_at = bytearray(), 0, 0, self._clock()
        async for piece in pieces:
            held += piece
            size_bytes += len(piece)
            while len(held) >= self._block_bytes:
                await self._bucket.put(f"{key}/{number}", bytes(held[: self._block_bytes]))
                del held[: self._block_bytes]
                number += 1
            if self._clock() - told_at > GRACE_S / 4:
                told_at = self._clock()
                await self._database.write(partial(loose.postpone, key=key, due_at=self._due_at()))
        if held:
            await self._bucket.put(f"{key}/{number}", bytes(held))
        return Blob(key=key, size_bytes=size_bytes, block_bytes=self._block_bytes)

    def _due_at(self) -> int:
        return int(self._clock()) + GRACE_S

    async def _drop(self, key: str) -> None:
        """Removes a blob unless a row has taken it up."""
        try:
            is_loose = await self._database.write(partial(loose.doom, key=key))
        except StoreError as error:  # the note stays, and with it the next sweep's work
            log.warning("blob_not_dropped", extra={"reason": str(error)})
            return
        if is_loose:
            await self.remove([key])

    def _drop_behind(self, key: str) -> None:
        task = asyncio.create_task(self._drop(key))
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
