"""Uploads in parts: joined in any order, completed once, and removed without a trace when
cancelled."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from llm_backend.store import (
    BadParts,
    Blobs,
    Bucket,
    Database,
    FileStore,
    Missing,
    PartLimits,
    StoredFile,
    StoredPart,
    StoredUpload,
    UploadClosed,
    UploadFull,
    UploadStatus,
    UploadStore,
    WrongDigest,
)
from tests.clock import Clock

_numbers = count(1)
NOW = 1_700_000_000
PLENTY = PartLimits(parts=10, total_bytes=1000)


@pytest.fixture
def files(database: Database, tmp_path: Path, clock: Clock) -> FileStore:
    bucket = Bucket((tmp_path / "files").as_uri())
    return FileStore(database, Blobs(database, bucket, clock=clock, block_bytes=4), clock=clock)


@pytest.fixture
def uploads(database: Database, files: FileStore, clock: Clock) -> UploadStore:
    return UploadStore(database, files.blobs, clock=clock)


async def begun(uploads: UploadStore, **changes: Any) -> StoredUpload:
    plain: dict[str, Any] = {
        "id": f"upload_{next(_numbers)}",
        "created_at": NOW,
        "purpose": "batch",
        "filename": "a.txt",
        "media_type": "text/plain",
        "size_bytes": 11,
        "expires_at": NOW + 3600,
    }
    upload = StoredUpload(**(plain | changes))
    await uploads.add(upload)
    return upload


async def sent(
    uploads: UploadStore, upload: StoredUpload, data: bytes, limits: PartLimits = PLENTY
) -> str:
    """The id of a part that has been added."""

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    async with uploads.blobs.writing(pieces()) as blob:
        id = f"part_{next(_numbers)}"
        part = StoredPart(id=id, created_at=NOW, upload_id=upload.id, blob=blob)
        await uploads.add_part(part, limits)
    return id


async def text_of(files: FileStore, file: StoredFile) -> bytes:
    return b"".join([piece async for piece in files.read(file, 0, file.size_bytes)])


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


async def test_parts_are_joined_in_the_given_order(uploads, files):
    upload = await begun(uploads, file_lifetime_s=3600)
    world, hello = await sent(uploads, upload, b" world"), await sent(uploads, upload, b"hello")

    done, file = await uploads.complete(upload.id, [hello, world], file_id="file-1")

    assert done.status is UploadStatus.COMPLETED
    assert await text_of(files, file) == b"hello world"
    assert (file.filename, file.purpose, file.expires_at) == ("a.txt", "batch", NOW + 3600)
    assert await files.get("file-1") == file


async def test_joining_copies_no_blob_and_keeps_only_named_parts(uploads, files, tmp_path):
    upload = await begun(uploads)
    wrong = await sent(uploads, upload, b"hallo world")
    right = await sent(uploads, upload, b"hello world")
    before = set(stored_files(tmp_path))

    _, file = await uploads.complete(upload.id, [right], file_id="file-1")

    assert set(stored_files(tmp_path)) < before
    assert len(stored_files(tmp_path)) == 3
    assert await text_of(files, file) == b"hello world"
    await files.delete("file-1")
    assert stored_files(tmp_path) == []
    assert wrong != right


async def test_upload_digest_must_match_its_parts(uploads, files):
    upload = await begun(uploads)
    parts = [await sent(uploads, upload, b"hello "), await sent(uploads, upload, b"world")]
    digest = hashlib.md5(b"hello world").hexdigest()

    with pytest.raises(WrongDigest, match=digest):
        await uploads.complete(upload.id, parts, file_id="file-1", md5="0" * 32)
    await uploads.complete(upload.id, parts, file_id="file-1", md5=digest.upper())

    assert (await files.get("file-1")).size_bytes == 11


async def test_parts_that_do_not_add_up_to_the_upload_are_refused(uploads, files):
    upload, other = await begun(uploads), await begun(uploads)
    part, others = await sent(uploads, upload, b"hello"), await sent(uploads, other, b" world")

    for part_ids, why in [
        ([part], "5 bytes together; the upload was created for 11"),
        ([part, others], f"no part `{others}`"),
        ([part, part], "more than once"),
        (["none"], "no part `none`"),
    ]:
        with pytest.raises(BadParts, match=why):
            await uploads.complete(upload.id, part_ids, file_id="file-1")

    assert (await files.list()).items == []


async def test_cancelled_upload_is_closed_and_its_blobs_removed(uploads, tmp_path):
    upload = await begun(uploads)
    part = await sent(uploads, upload, b"hello world")

    cancelled = await uploads.cancel(upload.id)

    assert cancelled.status is UploadStatus.CANCELLED
    assert stored_files(tmp_path) == []
    for attempt in (
        uploads.cancel(upload.id),
        uploads.complete(upload.id, [part], file_id="file-1"),
        sent(uploads, upload, b"more"),
    ):
        with pytest.raises(UploadClosed, match="cancelled"):
            await attempt
    await uploads.blobs.wait_idle()
    assert stored_files(tmp_path) == []


async def test_concurrent_completions_of_an_upload_succeed_once(uploads, files):
    upload = await begun(uploads)
    part = await sent(uploads, upload, b"hello world")

    outcomes = await asyncio.gather(
        *(uploads.complete(upload.id, [part], file_id=f"file-{n}") for n in range(4)),
        return_exceptions=True,
    )

    assert sum(isinstance(one, UploadClosed) for one in outcomes) == 3
    assert len((await files.list()).items) == 1


async def test_expired_upload_is_closed_and_its_blobs_removed(uploads, clock, tmp_path):
    upload = await begun(uploads)
    part = await sent(uploads, upload, b"hello world")
    clock.now = NOW + 3600

    with pytest.raises(UploadClosed, match="expired"):
        await uploads.complete(upload.id, [part], file_id="file-1")
    await uploads.expire()
    await uploads.blobs.sweep()

    assert stored_files(tmp_path) == []
    with pytest.raises(UploadClosed, match="expired"):
        await uploads.check(upload.id)
    clock.now = NOW + 3600 * 30
    await uploads.expire()
    with pytest.raises(Missing):
        await uploads.check(upload.id)


async def test_completed_upload_does_not_expire(uploads, files, clock):
    upload = await begun(uploads)
    part = await sent(uploads, upload, b"hello world")
    _, file = await uploads.complete(upload.id, [part], file_id="file-1")
    clock.now = NOW + 3600 * 30

    await uploads.expire()
    await uploads.blobs.sweep()

    assert await text_of(files, file) == b"hello world"


@pytest.mark.parametrize(
    "limits", [PartLimits(parts=1, total_bytes=1000), PartLimits(parts=10, total_bytes=9)]
)
async def test_upload_parts_are_limited_in_number_and_size(uploads, limits, tmp_path):
    upload = await begun(uploads)
    await sent(uploads, upload, b"hello", limits)

    with pytest.raises(UploadFull, match="at most"):
        await sent(uploads, upload, b"world", limits)
    await uploads.blobs.wait_idle()

    assert len(stored_files(tmp_path)) == 2


@pytest.mark.parametrize("id", ["none", "", "a\x00b"])
async def test_unknown_upload_is_missing(uploads, id):
    for attempt in (
        uploads.check(id),
        uploads.cancel(id),
        uploads.complete(id, ["x"], file_id="f", md5="0" * 32),
    ):
        with pytest.raises(Missing):
            await attempt
