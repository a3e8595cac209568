"""Stored files: found, listed page by page, deleted, and removed at their expiry."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from llm_backend.store import (
    Blobs,
    Bucket,
    Database,
    FileStore,
    Missing,
    StoredFile,
    UnknownCursor,
    Unstorable,
)
from tests.clock import Clock

_numbers = count(1)
NOW = 1_700_000_000


@pytest.fixture
def files(database: Database, tmp_path: Path, clock: Clock) -> FileStore:
    bucket = Bucket((tmp_path / "files").as_uri())
    return FileStore(database, Blobs(database, bucket, clock=clock), clock=clock)


async def stored(files: FileStore, **changes: Any) -> StoredFile:
    """A file that was uploaded."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"hello"

    async with files.blobs.writing(pieces()) as blob:
        plain: dict[str, Any] = {
            "id": f"file-{next(_numbers)}",
            "created_at": NOW,
            "purpose": "batch",
            "filename": "ünï.jsonl",
            "media_type": "text/plain",
        }
        file = StoredFile(content=(blob,), **(plain | changes))
        await files.add(file)
    return file


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]


async def ids(files: FileStore, **filters: Any) -> list[str]:
    return [file.id for file in (await files.list(**filters)).items]


async def test_file_is_returned_as_it_was_stored(files):
    file = await stored(files, expires_at=NOW + 10)

    found = await files.get(file.id)

    assert found == file
    assert found.size_bytes == 5
    assert [piece async for piece in files.read(found, 1, 3)] == [b"el"]


@pytest.mark.parametrize("id", ["none", "", "a\x00b", "\ud800"])
async def test_unknown_file_is_missing(files, id):
    with pytest.raises(Missing):
        await files.get(id)
    with pytest.raises(Missing):
        await files.delete(id)
    with pytest.raises(UnknownCursor):
        await files.list(after=id)


async def test_unstorable_file_name_is_refused_and_its_blob_removed(files, tmp_path):
    with pytest.raises(Unstorable):
        await stored(files, filename="a\x00b")
    await files.blobs.wait_idle()

    assert stored_files(tmp_path) == []


async def test_deleting_a_file_removes_its_blob(files, tmp_path):
    file, other = await stored(files), await stored(files)

    await files.delete(file.id)

    assert await ids(files) == [other.id]
    assert len(stored_files(tmp_path)) == 1
    with pytest.raises(Missing):
        await files.get(file.id)


async def test_pages_contain_each_file_once_in_either_order(files):
    made = [(await stored(files, created_at=NOW + position // 2)).id for position in range(5)]

    first = await files.list(limit=2, order="desc")
    second = await files.list(limit=9, order="desc", after=first.last_id)

    assert [file.id for file in (*first.items, *second.items)] == made[::-1]
    assert first.has_more
    assert not second.has_more
    assert await ids(files) == made


async def test_files_are_filtered_by_purpose(files):
    await stored(files)
    vision = await stored(files, purpose="vision")

    assert await ids(files, purpose="vision") == [vision.id]
    assert await ids(files, purpose="none") == []
    assert await ids(files, purpose="a\x00b") == []


async def test_file_is_missing_from_the_second_of_its_expiry(files, clock):
    file = await stored(files, expires_at=NOW + 10)
    clock.now = NOW + 9
    before = await ids(files)
    clock.now = NOW + 10

    assert before == [file.id]
    assert await ids(files) == []
    with pytest.raises(Missing):
        await files.get(file.id)


async def test_expired_files_are_removed_and_no_others(files, clock, tmp_path):
    for _ in range(3):
        await stored(files, expires_at=NOW + 10)
    others = [(await stored(files)).id, (await stored(files, expires_at=NOW + 99)).id]
    clock.now = NOW + 11

    await files.expire()
    await files.blobs.sweep()

    assert await ids(files) == others
    assert len(stored_files(tmp_path)) == 2
