"""Retention deletes old and excess objects: oldest first, and none in use."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_backend.durations import DAY_S
from llm_backend.store import (
    BackgroundStore,
    BatchStore,
    Blobs,
    Bucket,
    ConversationStore,
    Database,
    DeliveryLimit,
    Events,
    FilesFull,
    FileStore,
    Jobs,
    Missing,
    Owner,
    ResponseStore,
    Retention,
    RetentionLimits,
    StoredBatch,
    StoredConversation,
    StoredFile,
    StoredItem,
    StoredResponse,
    StoredVectorStore,
    VectorStores,
    as_owner,
)
from llm_backend.store.retention import retention as retention_module
from llm_backend.store.retention.retention_rows import ROWS_PER_TRANSACTION, history_bytes
from tests.store.chat_values import a_chat, some_messages

NOW = int(time.time())
OLD, YOUNG = NOW - 31 * DAY_S, NOW - 29 * DAY_S


def sweeping(database: Database, **limits: Any) -> Retention:
    return Retention(database, RetentionLimits(**limits), clock=lambda: NOW)


def response(id: str, created_at: int, **fields: Any) -> StoredResponse:
    said = StoredItem(id=f"{id}_in", item={"id": f"{id}_in", "text": "x" * 1000})
    return StoredResponse(
        id=id, created_at=created_at, model="m", body={"id": id}, input=[said], output=[],
        **({"status": "completed"} | fields),
    )  # fmt: skip


@pytest.fixture
def files(database: Database, tmp_path: Path) -> FileStore:
    blobs = Blobs(database, Bucket((tmp_path / "files").as_uri()))
    return FileStore(database, blobs, limit_bytes=100)


async def stored(
    files: FileStore, id: str, created_at: int = NOW, size_bytes: int = 1
) -> StoredFile:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * size_bytes

    async with files.blobs.writing(pieces()) as blob:
        file = StoredFile(
            id=id, created_at=created_at, purpose="batch", filename="a", media_type="text/plain",
            content=(blob,),
        )  # fmt: skip
        await files.add(file)
    return file


async def are_there(get, *ids: str) -> list[str]:
    found = []
    for id in ids:
        try:
            await get(id)
        except Missing:
            continue
        found.append(id)
    return found


async def test_old_chats_are_deleted_and_no_others(database, chats):
    for number in range(2 * ROWS_PER_TRANSACTION + 1):
        await chats.add(a_chat(id=f"old {number}", created_at=OLD), some_messages())
    await chats.add(a_chat(id="young", created_at=YOUNG), some_messages())

    await sweeping(database, retain_days=30).sweep()

    assert [chat.id for chat in (await chats.list()).items] == ["young"]


async def test_retention_without_limits_deletes_nothing(database, chats):
    await chats.add(a_chat(id="old", created_at=1), some_messages())

    await sweeping(database).sweep()

    assert await are_there(chats.get, "old") == ["old"]


async def test_response_is_kept_as_long_as_one_that_continues_it(database):
    responses = ResponseStore(database)
    for id, created_at, previous_id in (
        ("a1", OLD, None), ("a2", OLD, "a1"), ("a3", YOUNG, "a2"),
        ("b1", OLD, None), ("b2", OLD, "b1"),
    ):  # fmt: skip
        await responses.add(response(id, created_at, previous_id=previous_id))

    await sweeping(database, retain_days=30).sweep()

    kept = await are_there(responses.get, "a1", "a2", "a3", "b1", "b2")
    assert kept == ["a1", "a2", "a3"]
    assert len(await responses.load_context(previous_id="a3")) == 3
    assert await are_there(responses.item, "b1_in") == []


async def test_running_response_is_kept(database):
    responses = ResponseStore(database)
    await responses.add(response("r", OLD, status="in_progress"))

    await sweeping(database, retain_days=30, history_limit_bytes=0).sweep()

    assert await are_there(responses.get, "r") == ["r"]


async def test_age_of_a_conversation_is_that_of_its_last_append(database):
    conversations = ConversationStore(database)
    for id in ("silent", "alive"):
        conversation = StoredConversation(id=id, created_at=OLD, metadata={})
        await conversations.add(conversation, [])
    await conversations.add_items("alive", [StoredItem(id="i", item={"id": "i"})])

    await sweeping(database, retain_days=30).sweep()

    assert await are_there(conversations.get, "silent", "alive") == ["alive"]


async def test_old_files_and_ended_batches_are_deleted_and_inputs_of_running_ones_are_kept(
    database, files
):
    jobs = Jobs(database)
    batches = BatchStore(database, jobs, deliveries=DeliveryLimit(waiting=1))
    for id in ("read", "done", "free"):
        await stored(files, id, OLD)
    for id in ("read", "done"):
        await batches.add(
            StoredBatch(
                id=f"batch of {id}",
                created_at=OLD,
                endpoint="/v1/embeddings",
                input_file_id=id,
                completion_window="24h",
                expires_at=NOW,
            )
        )
    for job in await jobs.claim("batch", 2):
        if job.subject == "batch of done":
            await batches.fail(job, [])

    await sweeping(database, retain_days=30).sweep()

    assert await are_there(files.get, "read", "done", "free") == ["read"]
    assert await are_there(batches.get, "batch of read", "batch of done") == ["batch of read"]


async def test_vector_store_is_deleted_days_after_its_expiry(database, clock):
    stores = VectorStores(database, Jobs(database), clock=clock)
    for id, added_at in (("old", OLD - DAY_S), ("young", YOUNG - DAY_S), ("alive", NOW)):
        clock.now = added_at
        store = StoredVectorStore(
            id=id, created_at=1, name="", embedding_model="m", last_active_at=added_at,
            expires_after_days=1,
        )  # fmt: skip
        await stores.add(store, [])
    await stores.expire()

    await sweeping(database, retain_days=30).sweep()

    assert await are_there(stores.get, "old", "young", "alive") == ["young", "alive"]


async def test_oldest_history_is_deleted_until_it_fits(database, chats):
    responses, conversations = ResponseStore(database), ConversationStore(database)
    for number in range(0, 400, 4):
        await chats.add(a_chat(id=f"c{number}", created_at=number), some_messages())
        await responses.add(response(f"r{number + 1}", number + 1))
        said = StoredItem(id=f"i{number}", item={"id": f"i{number}", "text": "x" * 500})
        conversation = StoredConversation(id=f"v{number + 2}", created_at=number + 2, metadata={})
        await conversations.add(conversation, [])
        if number == 0:
            await conversations.add_items("v2", [said])
    kept_bytes = await database.read(history_bytes)

    await sweeping(database, history_limit_bytes=kept_bytes // 2).sweep()

    left_bytes = await database.read(history_bytes)
    assert kept_bytes // 4 < left_bytes <= kept_bytes // 2
    assert await are_there(chats.get, "c0", "c396") == ["c396"]
    assert await are_there(responses.get, "r1", "r397") == ["r397"]
    assert await are_there(conversations.get, "v2", "v6", "v398") == ["v2", "v398"]


async def test_no_more_history_is_deleted_than_needed(database, chats):
    for number in range(20):
        await chats.add(a_chat(id=f"c{number}", created_at=number), some_messages())
    kept_bytes = await database.read(history_bytes)

    await sweeping(database, history_limit_bytes=kept_bytes - 1).sweep()

    assert await are_there(chats.get, "c0", "c1", "c2") == ["c1", "c2"]


async def test_thread_is_as_old_as_its_last_response_and_deleted_as_a_whole(database):
    responses = ResponseStore(database)
    for id, created_at, previous_id in (
        ("a1", 1, None), ("b1", 2, None), ("b2", 3, "b1"), ("b3", 4, "b2"), ("a2", 9, "a1"),
    ):  # fmt: skip
        await responses.add(response(id, created_at, previous_id=previous_id))
    kept_bytes = await database.read(history_bytes)

    await sweeping(database, history_limit_bytes=kept_bytes - 1).sweep()

    assert await are_there(responses.get, "a1", "a2", "b1", "b2", "b3") == ["a1", "a2"]
    assert len(await responses.load_context(previous_id="a2")) == 2


async def test_fork_is_kept_for_the_thread_that_continues_it(database):
    responses = ResponseStore(database)
    for id, created_at, previous_id in (
        ("root", 1, None), ("left", 2, "root"), ("left 2", 3, "left"), ("right", 9, "root"),
    ):  # fmt: skip
        await responses.add(response(id, created_at, previous_id=previous_id))
    kept_bytes = await database.read(history_bytes)

    await sweeping(database, history_limit_bytes=kept_bytes - 1).sweep()

    kept = await are_there(responses.get, "root", "left", "left 2", "right")
    assert kept == ["root", "right"]


async def test_stored_events_count_towards_the_size_of_their_response(database):
    jobs = Jobs(database)
    background = BackgroundStore(database, jobs, limit=1, deliveries=DeliveryLimit(waiting=1))
    queued = response("r", NOW, status="queued")
    first = Events(lines=["x" * 100], last_number=0)
    await background.add(replace(queued, body={"id": "r", "status": "queued"}), {}, first)
    [job] = await jobs.claim("response", 1, "m")
    before = await database.read(history_bytes)

    await background.append(job, Events(lines=["y" * 1000, "z"], last_number=2))
    appended = await database.read(history_bytes)
    body = {"id": "r", "status": "completed", "output": []}
    await background.finish(job, body, [], Events(lines=["end"], last_number=3))
    finished = await database.read(history_bytes)
    await background.delete("r")

    assert appended - before == 1002
    assert finished - appended == len('"completed"') - len('"queued"') + len(',"output":[]') + 3
    assert await database.read(history_bytes) == 0


async def test_one_sweep_deletes_a_limited_number_of_rows(database, chats, monkeypatch):
    monkeypatch.setattr(retention_module, "STEPS_PER_SWEEP", 1)
    for number in range(ROWS_PER_TRANSACTION + 1):
        await chats.add(a_chat(id=f"c{number}", created_at=number), some_messages())
    retention = sweeping(database, history_limit_bytes=0)

    await retention.sweep()
    after_one = [chat.id for chat in (await chats.list()).items]
    await retention.sweep()

    assert after_one == [f"c{ROWS_PER_TRANSACTION}"]
    assert (await chats.list()).items == []


async def test_size_columns_equal_the_sizes_of_stored_bodies(database, chats):
    chat = a_chat(request={"a": "ü"}, response={})
    await chats.add(chat, [{"b": 1}])

    assert await database.read(history_bytes) == len('{"a":"\\u00fc"}' + "{}" + '{"b":1}')
    assert (await chats.get(chat.id)).request == {"a": "ü"}


async def test_file_byte_limit_is_shared_by_all_owners(files):
    with as_owner(Owner(id="one")):
        await stored(files, "a", size_bytes=60)

    with as_owner(Owner(id="two")), pytest.raises(FilesFull):
        await stored(files, "b", size_bytes=60)


async def test_files_over_the_byte_limit_are_refused_and_none_is_removed(files):
    await stored(files, "a", size_bytes=60)
    with pytest.raises(FilesFull, match="100 bytes"):
        await stored(files, "b", size_bytes=41)
    with pytest.raises(FilesFull):
        await files.check_capacity(41)
    await files.check_capacity(40)
    await stored(files, "c", size_bytes=40)
    await files.delete("a")
    await stored(files, "d", size_bytes=60)

    assert await are_there(files.get, "a", "b", "c", "d") == ["c", "d"]
