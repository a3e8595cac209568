"""Locks of concurrent transactions on PostgreSQL: no two transactions wait for each other.

The database rolls back a deadlocked work after a second, and it is retried. So each test counts how
often its works are run.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.util import await_only

from llm_backend.store import (
    ConversationStore,
    Database,
    LineResult,
    NewVectorFile,
    StoredBatch,
    StoredConversation,
    StoredFile,
    StoredItem,
    StoredResponse,
    StoredVectorStore,
    VectorStores,
    migrate,
)
from llm_backend.store.administration import Administration, AuditedChange, Record
from llm_backend.store.batches import batch_rows
from llm_backend.store.conversations import conversation_rows
from llm_backend.store.database.write_queue import UnitOfWork
from llm_backend.store.files import file_rows as stored_files
from llm_backend.store.jobs import Jobs
from llm_backend.store.responses import response_rows
from llm_backend.store.vector_stores import StoredChunking, file_batch_rows, file_rows
from tests.store.conftest import empty

DEADLINE_S = 20
A_WHILE_S = 0.1  # longer than others take to reach the same rows
ITEM = StoredItem(id="item", item={"id": "item", "text": "a"})


class Servers:
    """Two databases on one server, and the number of runs of their works."""

    def __init__(self, one: Database, other: Database) -> None:
        self.one, self.other = one, other
        self.begun = 0

    def counted(self, work: UnitOfWork[object]) -> UnitOfWork[object]:
        def counting(connection: Connection) -> object:
            self.begun += 1
            return work(connection)

        return counting


@pytest.fixture
async def servers(postgresql_url: str) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(Database.open(postgresql_url)) for _ in range(2)
        ]
        await migrate(one)
        await one.write(empty)
        for database in (one, other):
            engine: Any = database._engine
            event.listen(engine._engine.sync_engine, "after_cursor_execute", linger)
        yield Servers(one, other)


def linger(*_: object) -> None:
    """Delay after each statement, so that other transactions run in between."""
    await_only(asyncio.sleep(0.01))


async def conversation(database: Database, id: str, *items: StoredItem) -> None:
    await ConversationStore(database).add(StoredConversation(id=id, created_at=1), items)


def after_a_while(first: UnitOfWork[object], then: UnitOfWork[object]) -> UnitOfWork[object]:
    def work(connection: Connection) -> object:
        first(connection)
        await_only(asyncio.sleep(A_WHILE_S))
        return then(connection)

    return work


def holding(id: str) -> UnitOfWork[None]:
    return lambda connection: conversation_rows.lock(connection, id)


async def test_works_that_lock_rows_in_another_order_do_not_deadlock(servers):
    for id in "ab":
        await conversation(servers.one, id)

    def held(id: str) -> UnitOfWork[object]:
        return servers.counted(after_a_while(holding(id), holding(id)))

    await asyncio.gather(
        *(servers.one.write(held(id)) for id in "ab"),
        *(servers.other.write(held(id)) for id in "ba"),
    )

    assert servers.begun == 4


async def test_response_locks_its_conversation_before_its_items(servers):
    await conversation(servers.one, "a", ITEM)
    response = StoredResponse(
        id="resp", created_at=1, model="m", status="completed", body={"id": "resp"},
        input=[ITEM], output=[], conversation_id="a",
    )  # fmt: skip

    def delete(connection: Connection) -> object:
        return conversation_rows.delete_item(connection, "a", ITEM.id)

    def add(connection: Connection) -> object:
        return response_rows.add(connection, response)

    await asyncio.gather(
        servers.one.write(servers.counted(after_a_while(holding("a"), delete))),
        servers.other.write(servers.counted(add)),
    )

    assert servers.begun == 2


@pytest.fixture
async def store(servers: Servers) -> str:
    """The id of a vector store."""
    stores = VectorStores(servers.one, Jobs(servers.one))
    one = StoredVectorStore(id="vs", created_at=1, name="", embedding_model="m", last_active_at=1)
    await stores.add(one, [])
    return one.id


def file(number: int) -> NewVectorFile:
    return NewVectorFile(
        document=f"doc-{number}",
        file_id=f"file-{number}",
        filename="a",
        chunking=StoredChunking(max_tokens=100, overlap_tokens=0),
    )


def batch(store: str, number: int) -> UnitOfWork[object]:
    def add(connection: Connection) -> object:
        files = [file(one) for one in (2 * number, 2 * number + 1)]
        return file_batch_rows.add(connection, store, f"vsfb_{number}", files, now=1, lease_s=30)

    return add


async def each(servers: Servers, works: list[UnitOfWork[object]]) -> None:
    """Runs all works at once, alternating between the two databases."""
    databases = [servers.one, servers.other]
    await asyncio.gather(
        *(databases[place % 2].write(servers.counted(work)) for place, work in enumerate(works))
    )


async def test_concurrent_file_batches_of_one_store_do_not_deadlock(servers, store):
    await each(servers, [batch(store, number) for number in range(8)])

    assert servers.begun == 8


async def test_deleting_files_and_cancelling_their_batch_do_not_deadlock(servers, store):
    await each(servers, [batch(store, number) for number in range(4)])

    def forgetting(*numbers: int) -> UnitOfWork[object]:
        files = [f"file-{number}" for number in numbers]
        return lambda connection: file_rows.forget_files(connection, files, 1, lease_s=30)

    def cancelling(number: int) -> UnitOfWork[object]:
        return lambda connection: file_batch_rows.cancel(
            connection, store, f"vsfb_{number}", now=1, lease_s=30
        )

    works: list[UnitOfWork[object]] = [
        cancelling(0), forgetting(7, 1, 0), cancelling(3), forgetting(0, 1, 7),
    ]  # fmt: skip
    await each(servers, works)

    assert servers.begun == 8


async def test_answers_to_lines_do_not_wait_for_a_lock_on_their_batch(servers):
    batch = StoredBatch(
        id="batch", created_at=1, endpoint="/v1/embeddings", input_file_id="in",
        completion_window="24h", expires_at=9,
    )  # fmt: skip
    await servers.one.write(lambda connection: input_of(connection, batch))
    is_held, is_recorded = asyncio.Event(), asyncio.Event()

    def record(connection: Connection) -> object:
        return batch_rows.record(
            connection, batch.id, [LineResult(line=1, is_error=False, text="")]
        )

    def stop(connection: Connection) -> None:
        batch_rows.cancel(connection, batch.id, now=1)
        is_held.set()
        await_only(asyncio.wait_for(is_recorded.wait(), DEADLINE_S))

    moving = asyncio.create_task(servers.one.write(stop))
    await is_held.wait()
    await servers.other.write(record)
    is_recorded.set()
    await moving

    assert await servers.one.read(lambda one: batch_rows.numbers(one, batch.id, 1, 9)) == {1}


def input_of(connection: Connection, batch: StoredBatch) -> None:
    stored_files.add(
        connection,
        StoredFile(
            id=batch.input_file_id, created_at=1, purpose="batch", filename="a",
            media_type="text/plain", content=(),
        ),
    )  # fmt: skip
    batch_rows.add(connection, batch, 1)


async def test_concurrent_changes_of_an_administered_record_are_all_kept(servers):
    change = AuditedChange(type="project.updated", resource_id="a", project_id="", actor_id="")
    one, other = Administration(servers.one), Administration(servers.other)
    await one.add(change, Record(id="a", kind="project", created_at=1, body={}))

    def change_record(name: str) -> Callable[[Record], Record]:
        return lambda record: replace(record, body={**record.body, name: True})

    await asyncio.gather(
        *(administration.alter(change, "project", "a", change_record(name))
          for administration, names in ((one, "abc"), (other, "def")) for name in names)
    )  # fmt: skip

    assert (await one.get("project", "a")).body == dict.fromkeys("abcdef", True)
