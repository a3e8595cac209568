"""Blobs in the object store, a folder or a bucket: written in blocks, read by range, swept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_backend.store import (
    BlobGone,
    Blobs,
    Bucket,
    CannotOpen,
    Database,
    ObjectMissing,
    ObjectsUnavailable,
)
from llm_backend.store.objects import orphans
from llm_backend.store.objects.blob import Blob, size_of, slices
from llm_backend.store.objects.blobs import FAILURES_LIMIT, GRACE_S
from tests.clock import Clock

TEXT = b"It was a bright cold day in April"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> str:
    if request.param == "folder":
        return (tmp_path / "some files").as_uri()
    server = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.new_bucket()


@pytest.fixture
def bucket(url: str) -> Bucket:
    return Bucket(url)


@pytest.fixture
def blobs(database: Database, tmp_path: Path, clock: Clock) -> Blobs:
    return Blobs(database, Bucket((tmp_path / "files").as_uri()), clock=clock, block_bytes=10)


async def in_pieces(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def written(blobs: Blobs, database: Database, data: bytes = TEXT) -> Blob:
    async with blobs.writing(in_pieces(data)) as blob:
        await database.write(orphans.claim, [blob])
    return blob


async def all_of(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


async def test_bucket_reads_an_object_by_range(bucket):
    await bucket.put("one/0", TEXT)

    assert await bucket.get("one/0", 0, len(TEXT)) == TEXT
    assert await bucket.get("one/0", 3, 5) == TEXT[3:8]


async def test_bucket_reports_a_missing_object(bucket):
    await bucket.put("one/0", TEXT)
    with pytest.raises(ObjectMissing, match="lacks the object `none/0`"):
        await bucket.get("none/0", 0, 1)


async def test_bucket_whose_folder_is_not_mounted_is_unavailable(tmp_path):
    folder = tmp_path / "files"
    bucket = Bucket(folder.as_uri())
    await bucket.put("one/0", TEXT)
    folder.rename(tmp_path / "unmounted")
    folder.mkdir()

    with pytest.raises(ObjectsUnavailable):
        await bucket.get("one/0", 0, 1)


async def test_bucket_removes_only_objects_under_the_name(bucket):
    for name in ("one/0", "one/1", "oneself/0"):
        await bucket.put(name, TEXT)

    await bucket.remove("one")
    await bucket.remove("none")

    assert await bucket.get("oneself/0", 0, 2) == TEXT[:2]
    for name in ("one/0", "one/1"):
        with pytest.raises(ObjectMissing):
            await bucket.get(name, 0, 1)


async def test_bucket_removes_partial_files_of_a_killed_process(tmp_path):
    bucket = Bucket(tmp_path.as_uri())
    await bucket.put("one/0", TEXT)
    (tmp_path / "one" / "1#1").write_bytes(TEXT)

    await bucket.remove("one")

    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("url", ["folder", "file://host/x", "http://host/x", "s3:///x", ""])
def test_bucket_refuses_an_unknown_kind_of_url(url):
    with pytest.raises(CannotOpen, match="file:///FOLDER nor s3://BUCKET"):
        Bucket(url)


async def test_bucket_that_is_down_is_unavailable(monkeypatch, s3_server):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ObjectsUnavailable):
        await Bucket("s3://no-such-bucket/x").put("one/0", TEXT)
    with pytest.raises(ObjectsUnavailable):
        await Bucket("s3://no-such-bucket/x").get("one/0", 0, 1)


async def test_blob_is_read_by_any_range(blobs, database):
    first, second = await written(blobs, database), await written(blobs, database, b"and")
    content, whole = (first, second), TEXT + b"and"

    assert size_of(content) == len(whole)
    for start in range(0, len(whole), 3):
        for end in range(start, len(whole) + 1, 4):
            assert await all_of(blobs.read(content, start, end)) == whole[start:end]


def test_slices_of_empty_content_are_none():
    assert list(slices((), 0, 10)) == []
    blob = Blob(key="k", size_bytes=0, block_bytes=10)
    assert list(slices((blob,), 0, 10)) == []


async def test_failed_write_leaves_no_blob(blobs, tmp_path):
    async def breaking() -> AsyncIterator[bytes]:
        yield TEXT
        raise ConnectionError

    with pytest.raises(ConnectionError):
        async with blobs.writing(breaking()):
            pass
    await blobs.wait_idle()

    assert stored_files(tmp_path) == []


async def test_cancelled_write_leaves_no_blob(blobs, tmp_path):
    has_begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield TEXT
        has_begun.set()
        await asyncio.Event().wait()

    async def write() -> None:
        async with blobs.writing(endless()):
            pass

    task = asyncio.create_task(write())
    await has_begun.wait()
    had_begun = stored_files(tmp_path) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await blobs.wait_idle()

    assert had_begun
    assert stored_files(tmp_path) == []


async def test_claimed_blob_stays_when_the_caller_fails_afterwards(blobs, database, tmp_path):
    async def fail_afterwards() -> None:
        async with blobs.writing(in_pieces(TEXT)) as blob:
            taken_up.append(blob)
            await database.write(orphans.claim, [blob])
            raise ZeroDivisionError

    taken_up: list[Blob] = []
    with pytest.raises(ZeroDivisionError):
        await fail_afterwards()
    await blobs.wait_idle()

    assert await all_of(blobs.read(tuple(taken_up), 0, len(TEXT))) == TEXT


async def test_unclaimed_blob_is_swept_when_it_is_due(blobs, clock, tmp_path):
    async with blobs.writing(in_pieces(TEXT)):
        pass

    await blobs.sweep()
    is_there_within_its_time = stored_files(tmp_path) != []
    clock.now += GRACE_S + 1
    await blobs.sweep()

    assert is_there_within_its_time
    assert stored_files(tmp_path) == []


async def test_swept_blob_cannot_be_claimed(blobs, clock, database):
    async with blobs.writing(in_pieces(TEXT)) as blob:
        clock.now += GRACE_S + 1
        await blobs.sweep()

    with pytest.raises(BlobGone):
        await database.write(orphans.claim, [blob])


async def test_blob_that_is_still_written_is_not_swept(blobs, clock, database):
    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(TEXT), 4):
            clock.now += GRACE_S / 2
            await blobs.sweep()
            yield TEXT[start : start + 4]

    async with blobs.writing(slowly()) as blob:
        await database.write(orphans.claim, [blob])

    assert await all_of(blobs.read((blob,), 0, len(TEXT))) == TEXT


async def test_failed_removal_is_repeated_by_a_later_sweep(blobs, database, tmp_path):
    blob = await written(blobs, database)
    keys = await database.write(orphans.discard, [blob])
    folder, aside = tmp_path / "files" / blob.key, tmp_path / "aside"
    folder.rename(aside)
    folder.write_text("no folder")

    await blobs.remove(keys)
    folder.unlink()
    aside.rename(folder)
    await blobs.sweep()

    assert stored_files(tmp_path) == []


async def test_one_failing_removal_does_not_block_the_others(blobs, database, tmp_path):
    both = [await written(blobs, database) for _ in range(2)]
    first = min(blob.key for blob in both)
    await database.write(orphans.discard, both)
    folder, aside = tmp_path / "files" / first, tmp_path / "aside"
    folder.rename(aside)
    folder.write_text("no folder")

    await blobs.sweep()

    assert stored_files(tmp_path) == [folder]
    assert await database.write(orphans.mark_due_deleted, 0) == [first]


async def test_many_failing_removals_do_not_block_the_others_forever(blobs, database, tmp_path):
    last = await written(blobs, database)
    stuck = [f"{number:02}" for number in range(FAILURES_LIMIT + 1)]
    for key in stuck:
        (tmp_path / "files" / key).write_text("no folder")
    lost = [Blob(key=key, size_bytes=0, block_bytes=10) for key in stuck]
    await database.write(orphans.discard, [last, *lost])

    await blobs.sweep()
    await blobs.sweep()

    assert sorted(path.name for path in stored_files(tmp_path)) == stuck
