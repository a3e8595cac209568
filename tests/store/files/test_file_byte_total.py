"""Total of the bytes of all files and parts of uploads: one number, with a limit."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from llm_backend.store import (
    Blobs,
    Bucket,
    Database,
    FilesFull,
    FileStore,
    PartLimits,
    StoredFile,
    StoredPart,
    StoredUpload,
    UploadStore,
    recount_files,
)
from llm_backend.store.files import file_byte_total
from llm_backend.store.retention.retention_rows import delete_files
from llm_backend.store.tables import files as file_tables
from tests.clock import Clock

NOW = 1_700_000_000
LIMIT = 100
PARTS = PartLimits(parts=10, total_bytes=1000)


@dataclass(kw_only=True)
class Server:
    """Stores of one process that store files."""

    database: Database
    files: FileStore
    uploads: UploadStore
    numbers: count = field(default_factory=lambda: count(1))

    async def file(self, size_bytes: int, **more: Any) -> str:
        """The id of a file of this size."""
        async with self.files.blobs.writing(pieces(size_bytes)) as blob:
            file = StoredFile(
                id=f"file-{next(self.numbers)}",
                created_at=NOW,
                purpose="user_data",
                filename="a",
                media_type="text/plain",
                content=(blob,),
                **more,
            )
            await self.files.add(file)
        return file.id

    async def upload(self, size_bytes: int) -> str:
        """The id of an upload of a file of this size."""
        upload = StoredUpload(
            id=f"upload_{next(self.numbers)}",
            created_at=NOW,
            purpose="user_data",
            filename="a",
            media_type="text/plain",
            size_bytes=size_bytes,
            expires_at=NOW + 3600,
        )
        await self.uploads.add(upload)
        return upload.id

    async def part(self, upload_id: str, size_bytes: int) -> str:
        """The id of a part of this size."""
        async with self.uploads.blobs.writing(pieces(size_bytes)) as blob:
            id = f"part_{next(self.numbers)}"
            part = StoredPart(id=id, created_at=NOW, upload_id=upload_id, blob=blob)
            await self.uploads.add_part(part, PARTS)
        return id

    async def kept_bytes(self) -> int:
        """The stored total, which equals the true one."""
        known, there = await recount_files(self.database)
        assert known == there
        return there


async def pieces(size_bytes: int) -> AsyncIterator[bytes]:
    yield b"x" * size_bytes


@pytest.fixture
def server(database: Database, tmp_path: Path, clock: Clock) -> Server:
    clock.now = NOW
    blobs = Blobs(database, Bucket((tmp_path / "files").as_uri()), clock=clock)
    return Server(
        database=database,
        files=FileStore(database, blobs, limit_bytes=LIMIT, clock=clock),
        uploads=UploadStore(database, blobs, limit_bytes=LIMIT, clock=clock),
    )


async def refused(*storing: Coroutine[Any, Any, str]) -> int:
    """Number of these concurrent calls that are refused; no other error occurs."""
    outcomes = await asyncio.gather(*storing, return_exceptions=True)
    errors = [one for one in outcomes if isinstance(one, BaseException)]
    assert all(isinstance(one, FilesFull) for one in errors), errors
    return len(errors)


async def test_concurrent_files_stay_within_the_byte_limit(server):
    assert await refused(*(server.file(30) for _ in range(12))) == 9

    assert await server.kept_bytes() == 90


async def test_concurrent_files_and_parts_share_the_byte_limit(server):
    upload = await server.upload(1000)
    storing = (server.file(30), server.part(upload, 30))

    assert await refused(*storing, *(server.part(upload, 30) for _ in range(4))) == 3
    assert await server.kept_bytes() == 90


async def deleted(server: Server, _clock: Clock) -> None:
    await server.files.delete(await server.file(60))


async def expired(server: Server, clock: Clock) -> None:
    await server.file(60, expires_at=NOW + 10)
    clock.now = NOW + 10
    await server.files.expire()


async def forgotten(server: Server, _clock: Clock) -> None:
    await server.file(60)
    await server.database.write(delete_files, NOW)


async def cancelled(server: Server, _clock: Clock) -> None:
    upload = await server.upload(60)
    await server.part(upload, 60)
    await server.uploads.cancel(upload)


async def given_up(server: Server, clock: Clock) -> None:
    await server.part(await server.upload(60), 60)
    clock.now = NOW + 3600
    await server.uploads.expire()


@pytest.mark.parametrize("going", [deleted, expired, forgotten, cancelled, given_up])
async def test_deleted_bytes_are_subtracted_from_the_total(
    server: Server, clock: Clock, going: Callable[[Server, Clock], Coroutine[Any, Any, None]]
) -> None:
    await going(server, clock)

    assert await server.kept_bytes() == 0
    await server.file(LIMIT)


async def test_completed_upload_counts_once_and_its_unused_parts_do_not_count(server):
    upload = await server.upload(40)
    used, _unused = await server.part(upload, 40), await server.part(upload, 50)

    await server.uploads.complete(upload, [used], file_id="file-joined")

    assert await server.kept_bytes() == 40


async def test_recount_corrects_the_total(server):
    await server.file(60)
    await server.database.write(lambda connection: connection.execute(delete(file_tables.files)))
    with pytest.raises(FilesFull):
        await server.file(60)

    assert await recount_files(server.database) == (60, 0)
    await server.file(60)
    assert await server.database.read(file_byte_total.stored_bytes) == 60
