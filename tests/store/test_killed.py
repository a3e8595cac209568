"""Works of a process that is killed in the middle are complete or undone."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from llm_backend.store import (
    Blobs,
    Bucket,
    ConversationStore,
    Database,
    FileStore,
    Jobs,
    Missing,
    NewVectorFile,
    PartLimits,
    ResponseStore,
    StoredConversation,
    StoredPart,
    StoredUpload,
    StoredVectorStore,
    UploadClosed,
    UploadStore,
    VectorStores,
    migrate,
    recount_files,
)
from llm_backend.store.tables.conversations import items
from llm_backend.store.vector_stores import INGEST, StoredChunking

PROGRAM = Path(__file__).with_name("dying.py")
NOW = 1_700_000_000
LIMITS = PartLimits(parts=3, total_bytes=100)
CLOCK = {"clock": lambda: NOW}


def opened(folder: Path):
    return Database.open(f"sqlite:///{folder / 'state.db'}")


def blobs_in(folder: Path, database: Database) -> Blobs:
    return Blobs(database, Bucket((folder / "files").as_uri()))


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with a database that has a conversation, an upload of two parts and one more, and a
    file to ingest into a vector store."""
    folder = tmp_path / "folder"
    folder.mkdir()
    async with opened(folder) as database:
        await migrate(database)
        await ConversationStore(database).add(StoredConversation(id="conv", created_at=NOW), [])
        await begin_upload(UploadStore(database, blobs_in(folder, database), **CLOCK))
        stores = VectorStores(database, Jobs(database))
        store = StoredVectorStore(
            id="vs", created_at=NOW, name="", embedding_model="m", last_active_at=NOW
        )
        chunking = StoredChunking(max_tokens=100, overlap_tokens=0)
        file = NewVectorFile(document="doc", file_id="f", filename="a", chunking=chunking)
        await stores.add(store, [file])
    return folder


async def begin_upload(uploads: UploadStore) -> None:
    upload = StoredUpload(
        id="upload", created_at=NOW, purpose="assistants", filename="a", media_type="text/plain",
        size_bytes=6, expires_at=2 * NOW,
    )  # fmt: skip
    await uploads.add(upload)
    for number in range(3):
        async with uploads.blobs.writing(some(b"abc")) as blob:
            part = StoredPart(id=f"part{number}", created_at=NOW, upload_id="upload", blob=blob)
            await uploads.add_part(part, LIMITS)


async def some(text: bytes) -> AsyncIterator[bytes]:
    yield text


async def left_by(folder: Path, work: str) -> list[Path]:
    """Copies of the folder as they are after a kill at each point of the work; in the last the work
    is complete."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, PROGRAM, folder, work],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    left = [folder.with_name(f"{folder.name}-{at}") for at in range(int(done.stdout))]
    assert len(left) > 3
    return left


async def test_killed_completion_of_an_upload_is_whole_or_undone(folder: Path) -> None:
    were_files = []
    for left in await left_by(folder, "complete"):
        async with opened(left) as database:
            blobs = blobs_in(left, database)
            files, uploads = FileStore(database, blobs), UploadStore(database, blobs)
            known, there = await recount_files(database)
            try:
                await uploads.complete("upload", ["part0", "part1"], file_id="file")
                were_files.append(False)
            except UploadClosed:
                were_files.append(True)
            await blobs.sweep()
            file = await files.get("file")
            text = b"".join([piece async for piece in files.read(file, 0, 6)])

            assert known == there == (6 if were_files[-1] else 9)
            assert text == b"abcabc"
        assert len([one for one in (left / "files").rglob("*") if one.is_file()]) == 2

    assert were_files == sorted(were_files)
    assert {*were_files} == {True, False}


@pytest.mark.parametrize("work", ["append", "respond"])
async def test_killed_append_to_a_conversation_is_whole_or_undone(folder: Path, work: str) -> None:
    lengths = []
    for left in await left_by(folder, work):
        async with opened(left) as database:
            conversations = ConversationStore(database)
            said = [item.id for item in (await conversations.items("conv", order="asc")).items]
            lengths.append(len(said))
            count = select(func.count()).select_from(items)

            assert said in ([], ["item0", "item1", "item2"])
            assert await database.read(lambda one, count=count: one.scalar(count)) == len(said)
            if work == "respond":
                assert await is_there(ResponseStore(database), "resp") is bool(said)

    assert lengths == sorted(lengths)
    assert {*lengths} == {0, 3}


async def is_there(responses: ResponseStore, id: str) -> bool:
    try:
        await responses.get(id)
    except Missing:
        return False
    return True


async def test_killed_ingestion_is_whole_or_leaves_its_job(folder: Path) -> None:
    statuses = []
    for left in await left_by(folder, "ingest"):
        async with opened(left) as database:
            jobs = Jobs(database)
            stores = VectorStores(database, jobs)
            await jobs.release_dead_leases()
            claimed = await jobs.claim(INGEST, 1)
            file, text = await stores.file("vs", "f"), await stores.text("vs", "f")
            statuses.append(file.status)

            assert bool(claimed) is (file.status == "in_progress")
            assert text == ("" if claimed else "text 0text 1text 2")

    assert statuses == sorted(statuses, reverse=True)
    assert {*statuses} == {"in_progress", "completed"}
