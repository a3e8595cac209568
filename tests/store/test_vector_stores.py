"""Vector stores as rows: pages, counts, jobs that are added and removed with files, and expiry."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select

from llm_backend.durations import DAY_S
from llm_backend.store import (
    AttributesChanged,
    Blobs,
    Bucket,
    Database,
    Expired,
    FileError,
    FileStore,
    Job,
    Jobs,
    LeaseLost,
    Missing,
    NewVectorFile,
    StoredChunk,
    StoredFile,
    StoredVectorStore,
    UnknownCursor,
    VectorStores,
)
from llm_backend.store.administration import StoredUsage
from llm_backend.store.database.ownership import Owner, as_owner
from llm_backend.store.jobs import job_rows
from llm_backend.store.tables.vector_stores import (
    vector_store_batches,
    vector_store_chunks,
    vector_store_files,
    vector_stores,
)
from llm_backend.store.vector_stores import (
    INGEST,
    REMOVE_FILE,
    REMOVE_STORE,
    StoredChunking,
    store_rows,
)
from tests.clock import Clock

NOW = 1_700_000_000
LEASE_S = 45.0
CHUNKING = StoredChunking(max_tokens=800, overlap_tokens=400)


@pytest.fixture
def jobs(database: Database, clock: Clock) -> Jobs:
    return Jobs(database, lease_s=LEASE_S, clock=clock)


@pytest.fixture
def stores(database: Database, jobs: Jobs, clock: Clock) -> VectorStores:
    return VectorStores(database, jobs, clock=clock)


def new_file(name: str) -> NewVectorFile:
    return NewVectorFile(
        document=f"vsf_{name}", file_id=f"file-{name}", filename=f"{name}.txt", chunking=CHUNKING
    )


async def add(stores: VectorStores, *names: str, days: int | None = None) -> StoredVectorStore:
    store = StoredVectorStore(
        id="vs_1", created_at=NOW, name="s", last_active_at=NOW, embedding_model="m",
        expires_after_days=days,
    )  # fmt: skip
    await stores.add(store, [new_file(name) for name in names])
    return await stores.get_with_counts("vs_1")


async def subjects(jobs: Jobs, kind: str) -> list[str]:
    return [job.subject for job in await jobs.claim(kind, 10)]


async def ingested(stores: VectorStores, jobs: Jobs, texts: Sequence[str]) -> Job:
    (job,) = await jobs.claim(INGEST, 1)
    chunks = [
        StoredChunk(point_id=f"{job.subject}-{place}", text=text, repeated=1 if place else 0)
        for place, text in enumerate(texts)
    ]
    await stores.complete(job, chunks, 7, {})
    return job


async def test_each_vector_store_file_has_a_job_and_is_counted(
    stores: VectorStores, jobs: Jobs
) -> None:
    store = await add(stores, "a", "b")
    assert (store.files.in_progress, store.files.total) == (2, 2)

    await ingested(stores, jobs, ["ab", "bc"])
    (job,) = await jobs.claim(INGEST, 1)
    await stores.fail(job, FileError(code="invalid_file", message="No."))

    store = await stores.get_with_counts("vs_1")
    assert (store.files.completed, store.files.failed, store.usage_bytes) == (1, 1, 7)
    assert await stores.text("vs_1", "file-a") == "abc"
    failed = await stores.file("vs_1", "file-b")
    assert failed.error == FileError(code="invalid_file", message="No.")
    assert await subjects(jobs, INGEST) == []


async def test_removed_ingestion_job_stores_nothing(
    stores: VectorStores, jobs: Jobs, clock: Clock
) -> None:
    await add(stores, "a")
    (job,) = await jobs.claim(INGEST, 1)
    await stores.delete_file("vs_1", "file-a")

    with pytest.raises(LeaseLost):
        await stores.complete(job, [StoredChunk(point_id="p", text="a", repeated=0)], 1, {})

    assert await stores.chunks(["p"]) == []
    clock.now += 2 * LEASE_S - 1
    assert await subjects(jobs, REMOVE_FILE) == []  # its worker may still put points
    clock.now += 1
    assert await subjects(jobs, REMOVE_FILE) == ["vsf_a"]


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_removal_of_a_deleted_file_waits_for_the_lease_of_its_ingestion(
    stores: VectorStores, jobs: Jobs, clock: Clock, database: Database, tmp_path: Path,
    is_deleted: bool,
) -> None:  # fmt: skip
    blobs = Blobs(database, Bucket((tmp_path / "files").as_uri()))
    files = FileStore(database, blobs, job_lease_s=LEASE_S, clock=clock)
    await files.add(
        StoredFile(
            id="file-a", created_at=NOW, purpose="assistants", filename="a.txt",
            media_type="text/plain", content=(), expires_at=None if is_deleted else NOW + 10,
        )
    )  # fmt: skip
    await add(stores, "a")
    await jobs.claim(INGEST, 1)
    clock.now += 10
    await (files.delete("file-a") if is_deleted else files.expire())

    clock.now += 2 * LEASE_S - 1
    assert await subjects(jobs, REMOVE_FILE) == []
    clock.now += 1
    assert await subjects(jobs, REMOVE_FILE) == ["vsf_a"]


async def test_chunks_are_found_by_their_points(stores: VectorStores, jobs: Jobs) -> None:
    await add(stores, "a")
    await ingested(stores, jobs, ["one", "two"])

    (found,) = await stores.chunks(["vsf_a-1", "elsewhere"])

    assert (found.text, found.file_id, found.filename) == ("two", "file-a", "a.txt")


async def test_file_added_again_is_another_document(stores: VectorStores, jobs: Jobs) -> None:
    await add(stores, "a")
    await ingested(stores, jobs, ["one"])

    again = NewVectorFile(document="vsf_b", file_id="file-a", filename="a", chunking=CHUNKING)
    await stores.add_file("vs_1", again)

    assert await subjects(jobs, REMOVE_FILE) == ["vsf_a"]
    assert await subjects(jobs, INGEST) == ["vsf_b"]
    assert (await stores.get_with_counts("vs_1")).files.total == 1


async def test_cancelling_a_file_batch_keeps_ingested_files(
    stores: VectorStores, jobs: Jobs, clock: Clock
) -> None:
    await add(stores)
    await stores.add_batch("vs_1", "vsfb_1", [new_file("a"), new_file("b")])
    await ingested(stores, jobs, ["one"])

    batch = await stores.cancel_batch("vs_1", "vsfb_1")

    assert (batch.files.completed, batch.files.cancelled, batch.is_cancelled) == (1, 1, True)
    assert await subjects(jobs, INGEST) == []
    clock.now += 2 * LEASE_S
    assert await subjects(jobs, REMOVE_FILE) == ["vsf_b"]


async def test_cancelling_an_ingested_file_batch_changes_nothing(
    stores: VectorStores, jobs: Jobs
) -> None:
    await add(stores)
    await stores.add_batch("vs_1", "vsfb_1", [new_file("a")])
    await ingested(stores, jobs, ["one"])

    batch = await stores.cancel_batch("vs_1", "vsfb_1")

    assert (batch.files.completed, batch.is_cancelled) == (1, False)


async def test_failed_ingestion_adds_a_job_that_removes_its_points(
    stores: VectorStores, jobs: Jobs, clock: Clock
) -> None:
    await add(stores, "a")
    (job,) = await jobs.claim(INGEST, 1)

    await stores.fail(job, FileError(code="invalid_file", message="No."))

    clock.now += 2 * LEASE_S
    assert await subjects(jobs, REMOVE_FILE) == ["vsf_a"]


async def test_vector_store_is_in_one_vector_index(stores: VectorStores) -> None:
    await add(stores)

    taken = await asyncio.gather(*(stores.claim_index("vs_1", name) for name in ("a", "b")))

    assert taken[0] == taken[1] == await stores.claim_index("vs_1", "c")


async def test_expired_vector_store_is_emptied(
    stores: VectorStores, jobs: Jobs, clock: Clock
) -> None:
    store = await add(stores, "a", days=2)
    assert store.expires_at == NOW + 2 * DAY_S
    clock.now += DAY_S
    await stores.record_use(store)
    clock.now += 1.5 * DAY_S
    await stores.expire()
    assert not (await stores.get("vs_1")).is_emptied

    clock.now += DAY_S
    await stores.expire()

    emptied = await stores.get_with_counts("vs_1")
    assert (emptied.is_emptied, emptied.files.total) == (True, 0)
    assert await subjects(jobs, REMOVE_STORE) == ["vs_1"]
    assert await subjects(jobs, INGEST) == []


async def test_deleted_vector_store_adds_a_job_that_removes_its_collection(
    stores: VectorStores, jobs: Jobs
) -> None:
    await add(stores, "a")

    await stores.delete("vs_1")

    with pytest.raises(Missing):
        await stores.get("vs_1")
    assert await subjects(jobs, REMOVE_STORE) == ["vs_1"]
    assert await subjects(jobs, INGEST) == []


async def add_chunks(stores: VectorStores, jobs: Jobs, *names: str, number: int) -> None:
    await add(stores, *names, days=2)
    for _ in names:
        await ingested(stores, jobs, ["some text"] * number)


async def row_count(database: Database) -> int:
    tables = vector_stores, vector_store_batches, vector_store_files, vector_store_chunks
    counts = [select(func.count()).select_from(table) for table in tables]
    return await database.read(lambda connection: sum(map(connection.scalar, counts)))


def watch_deletions(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, bound: int
) -> list[int]:
    """Numbers of rows that each unit of work deletes; at most `bound` are expected."""
    monkeypatch.setattr(store_rows, "ROWS_PER_TRANSACTION", bound)
    write, numbers = database.write, list[int]()

    async def counting(work: Any, **values: Any) -> Any:
        before = await row_count(database)
        result = await write(work, **values)
        numbers.append(before - await row_count(database))
        return result

    monkeypatch.setattr(database, "write", counting)
    return numbers


async def test_rows_of_a_deleted_vector_store_are_deleted_some_at_a_time(
    stores: VectorStores, jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_chunks(stores, jobs, "a", "b", "c", number=700)
    await stores.add_batch("vs_1", "vsfb_1", [new_file("d")])
    deleted = watch_deletions(database, monkeypatch, bound=200)

    await stores.delete("vs_1")
    with as_owner(Owner.default_project()):
        page = await stores.list(after=None, before=None, limit=9, order="asc")
        for read in (
            stores.get("vs_1"),
            stores.file("vs_1", "file-a"),
            stores.text("vs_1", "file-a"),
            stores.set_attributes("vs_1", "file-a", {}),
            stores.file_of_document("vsf_a"),
            stores.batch("vs_1", "vsfb_1"),
            stores.delete("vs_1"),
        ):
            with pytest.raises(Missing):
                await read
    await stores.delete_rows("vs_1")

    assert page.items == []
    assert await row_count(database) == 0
    assert (sum(deleted), max(deleted)) == (2106, 200)


async def test_sweep_deletes_the_rows_of_deleted_vector_stores(
    stores: VectorStores, jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_chunks(stores, jobs, "a", "b", number=700)
    deleted = watch_deletions(database, monkeypatch, bound=200)
    await stores.delete("vs_1")
    await stores.expire()

    assert await row_count(database) == 0
    assert max(deleted) == 200


async def test_rows_of_an_expired_vector_store_are_deleted_some_at_a_time(
    stores: VectorStores, jobs: Jobs, database: Database, clock: Clock, monkeypatch
) -> None:
    await add_chunks(stores, jobs, "a", "b", number=700)
    deleted = watch_deletions(database, monkeypatch, bound=200)
    clock.now += 3 * DAY_S

    await stores.expire()

    assert (await stores.get("vs_1")).is_emptied
    assert (sum(deleted), max(deleted)) == (1402, 200)


async def remove_from_store(stores: VectorStores, files: FileStore, clock: Clock) -> None:
    await stores.delete_file("vs_1", "file-a")


async def add_again(stores: VectorStores, files: FileStore, clock: Clock) -> None:
    await stores.add_file("vs_1", replace(new_file("a"), document="vsf_again"))
    await stores.delete_file("vs_1", "file-a")


async def delete_upload(stores: VectorStores, files: FileStore, clock: Clock) -> None:
    await files.delete("file-a")


async def expire_upload(stores: VectorStores, files: FileStore, clock: Clock) -> None:
    clock.now += 10
    await files.expire()


@pytest.mark.parametrize("remove", [remove_from_store, add_again, delete_upload, expire_upload])
async def test_rows_of_a_deleted_file_are_deleted_some_at_a_time(
    stores: VectorStores, jobs: Jobs, database: Database, clock: Clock, tmp_path, monkeypatch,
    remove: Callable[[VectorStores, FileStore, Clock], Awaitable[None]],
) -> None:  # fmt: skip
    files = FileStore(database, Blobs(database, Bucket(tmp_path.as_uri())), clock=clock)
    await files.add(
        StoredFile(
            id="file-a", created_at=NOW, purpose="assistants", filename="a.txt",
            media_type="text/plain", content=(), expires_at=NOW + 10,
        )
    )  # fmt: skip
    await add_chunks(stores, jobs, "a", "b", number=700)
    deleted = watch_deletions(database, monkeypatch, bound=200)

    await remove(stores, files, clock)

    with pytest.raises(Missing):
        await stores.text("vs_1", "file-a")
    assert await stores.chunks(["vsf_a-0"]) == []
    assert len(await stores.chunks(["vsf_b-0"])) == 1
    assert (await stores.get_with_counts("vs_1")).files.total == 1
    removals = await jobs.claim(REMOVE_FILE, 10)
    assert "vsf_a" in [job.subject for job in removals]
    for job in removals:
        await stores.delete_rows(job.details["rows_id"])
    await stores.expire()
    assert await row_count(database) == 702  # the store and the other file
    assert max(deleted) == 200


async def delete_store(stores: VectorStores, clock: Clock) -> None:
    await stores.delete("vs_1")


async def expire_store(stores: VectorStores, clock: Clock) -> None:
    clock.now += 3 * DAY_S
    await stores.expire()


async def cancel_batch(stores: VectorStores, clock: Clock) -> None:
    await stores.cancel_batch("vs_1", "vsfb_1")


async def add_all_again(stores: VectorStores, clock: Clock) -> None:
    names = [f"{place}" for place in range(40)]
    again = [replace(new_file(name), document=f"vsf_again_{name}") for name in names]
    await stores.add_batch("vs_1", "vsfb_2", again)


@pytest.mark.parametrize("stop", [delete_store, expire_store, cancel_batch, add_all_again])
async def test_many_ingestions_are_stopped_in_few_statements(
    stores: VectorStores, database: Database, clock: Clock,
    stop: Callable[[VectorStores, Clock], Awaitable[None]],
) -> None:  # fmt: skip
    deletions: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM jobs"):
            deletions.append(statement)

    await add(stores, days=2)
    await stores.add_batch("vs_1", "vsfb_1", [new_file(f"{place}") for place in range(40)])
    event.listen(Engine, "before_cursor_execute", count)
    try:
        await stop(stores, clock)
    finally:
        event.remove(Engine, "before_cursor_execute", count)

    left = [
        place
        for place in range(40)
        if await database.read(job_rows.are_any, kind=INGEST, subject=f"vsf_{place}")
    ]
    assert left == []
    assert len(deletions) <= 2


async def test_vector_stores_are_paginated_in_both_directions(stores: VectorStores) -> None:
    await add(stores, "a", "b", "c", "d")
    listed = partial(stores.files, "vs_1", order="asc", status=None)

    before = await listed(after=None, before="file-d", limit=2)
    after = await listed(after="file-b", before=None, limit=2)

    assert [file.id for file in before.items] == ["file-b", "file-c"]
    assert before.has_more
    assert [file.id for file in after.items] == ["file-c", "file-d"]
    with pytest.raises(UnknownCursor, match="`after` names `file-x`"):
        await listed(after="file-x", before=None, limit=2)
    with pytest.raises(UnknownCursor, match="`before` names `file-x`"):
        await listed(after=None, before="file-x", limit=2)
    with pytest.raises(Missing):
        await stores.files("vs_2", order="asc", status=None, after=None, before=None, limit=2)


async def test_vector_store_bytes_are_of_all_projects_for_any_owner(
    database: Database, stores: VectorStores, jobs: Jobs
) -> None:
    with as_owner(Owner(id="proj_1")):
        await add(stores, "a")
    await ingested(stores, jobs, ["text"])

    with as_owner(Owner.default_project()):
        assert await StoredUsage(database).vector_store_bytes() == {"proj_1": 7}


async def test_expired_vector_store_refuses_files(
    stores: VectorStores, jobs: Jobs, clock: Clock
) -> None:
    await add(stores, days=1)
    clock.now += DAY_S

    with pytest.raises(Expired):
        await stores.add_file("vs_1", new_file("a"))
    with pytest.raises(Expired):
        await stores.add_batch("vs_1", "vsfb_1", [new_file("a")])

    assert (await stores.get_with_counts("vs_1")).files.total == 0
    assert await subjects(jobs, INGEST) == []


@pytest.mark.parametrize("days", [30, None])
async def test_expired_vector_store_cannot_be_extended(
    stores: VectorStores, clock: Clock, days: int | None
) -> None:
    await add(stores, days=1)
    clock.now += 2 * DAY_S

    with pytest.raises(Expired):
        await stores.update("vs_1", {"expires_after_days": days})
    renamed = await stores.update("vs_1", {"name": "over"})

    assert (renamed.name, renamed.expires_after_days) == ("over", 1)
    assert renamed.expires_at == NOW + DAY_S


@pytest.mark.parametrize("days", [30, None])
async def test_vector_store_is_extended_from_now(
    stores: VectorStores, clock: Clock, days: int | None
) -> None:
    await add(stores, days=2)
    clock.now += DAY_S

    extended = await stores.update("vs_1", {"expires_after_days": days})

    assert extended.expires_at == (None if days is None else NOW + 31 * DAY_S)


async def test_ingestion_with_replaced_attributes_is_refused(
    stores: VectorStores, jobs: Jobs
) -> None:
    await add(stores, "a")
    (job,) = await jobs.claim(INGEST, 1)
    await stores.set_attributes("vs_1", "file-a", {"color": "red"})

    with pytest.raises(AttributesChanged) as changed:
        await stores.complete(job, [], 0, {})

    assert changed.value.attributes == {"color": "red"}
    await stores.complete(job, [], 0, changed.value.attributes)
    assert (await stores.file("vs_1", "file-a")).status == "completed"
