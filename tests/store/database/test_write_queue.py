"""Group commit: concurrent writes share transactions, and fail alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from llm_backend.store import Duplicate, StoreDeadlock, StoreUnavailable
from llm_backend.store.database.write_queue import DEADLOCK_RETRIES, WriteQueue
from tests.store.chat_values import a_chat, some_messages


class Ledger:
    """A fake database: runs works, and records commits."""

    def __init__(self) -> None:
        self.commits: list[list[object]] = []
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    async def commit(self, works):
        await self.may_commit.wait()
        results = [work(self) for work in works]
        self.commits.append(results)
        return results


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@asynccontextmanager
async def writing(ledger: Ledger, **sizes: int) -> AsyncIterator[WriteQueue]:
    queue = WriteQueue(ledger.commit, **sizes)
    yield queue
    await queue.close()


def saying(value: object) -> Callable[[object], object]:
    return lambda _: value


def failing(error: Exception) -> Callable[[object], object]:
    def work(_: object) -> object:
        raise error

    return work


async def test_waiting_writes_share_a_commit(ledger):
    async with writing(ledger) as queue:
        results = await asyncio.gather(
            *(queue.write_batched(saying(number)) for number in range(10))
        )

    assert results == list(range(10))
    assert ledger.commits == [list(range(10))]


async def test_commit_contains_at_most_one_batch(ledger):
    async with writing(ledger, batch=4) as queue:
        await asyncio.gather(*(queue.write_batched(saying(number)) for number in range(10)))

    assert [len(commit) for commit in ledger.commits] == [4, 4, 2]


@pytest.mark.parametrize("bad", range(7))
async def test_bad_write_fails_alone(ledger, bad):
    works = [failing(ValueError("bad")) if number == bad else saying(number) for number in range(7)]

    async with writing(ledger) as queue:
        outcomes = await asyncio.gather(*map(queue.write_batched, works), return_exceptions=True)

    assert isinstance(outcomes[bad], ValueError)
    assert [o for o in outcomes if o is not outcomes[bad]] == [n for n in range(7) if n != bad]
    assert sum(len(commit) for commit in ledger.commits) == 6


async def test_unavailable_database_is_not_retried_for_every_write(ledger):
    calls = []
    gone = StoreUnavailable("gone")

    def work(_: object) -> None:
        calls.append(1)
        raise gone

    async with writing(ledger) as queue:
        outcomes = await asyncio.gather(
            *(queue.write_batched(work) for _ in range(8)), return_exceptions=True
        )

    assert outcomes == [gone] * 8
    assert len(calls) == 1


async def test_deadlocked_writes_are_retried_in_halves(ledger):
    deadlocks = iter([True, True])

    def work(_: object) -> str:
        if next(deadlocks, False):
            raise StoreDeadlock
        return "written"

    async with writing(ledger) as queue:
        outcomes = await asyncio.gather(*(queue.write_batched(work) for _ in range(4)))

    assert outcomes == ["written"] * 4


async def test_write_that_locks_rows_has_a_transaction_of_its_own(ledger):
    async with writing(ledger) as queue:
        await asyncio.gather(
            queue.write_batched(saying(1)),
            queue.write_batched(saying(2)),
            queue.write(saying(3)),
            queue.write(saying(4)),
            queue.write_batched(saying(5)),
            queue.write_batched(saying(6)),
        )

    assert ledger.commits == [[1, 2], [3], [4], [5, 6]]


@pytest.mark.parametrize(
    ("deadlocks", "is_written"), [(DEADLOCK_RETRIES, True), (DEADLOCK_RETRIES + 1, False)]
)
async def test_deadlocked_write_is_retried_a_few_times(ledger, deadlocks, is_written):
    left = iter(range(deadlocks))

    def work(_: object) -> str:
        if next(left, None) is not None:
            raise StoreDeadlock
        return "written"

    async with writing(ledger) as queue:
        (outcome,) = await asyncio.gather(queue.write(work), return_exceptions=True)

    assert (outcome == "written") is is_written
    assert is_written or isinstance(outcome, StoreDeadlock)


async def test_full_write_queue_blocks_writers(ledger):
    ledger.may_commit.clear()

    async with writing(ledger, depth=3, batch=1) as queue:
        writers = [asyncio.create_task(queue.write_batched(saying(number))) for number in range(5)]
        await asyncio.sleep(0)
        assert len(queue._queued) == 3
        ledger.may_commit.set()
        results = await asyncio.gather(*writers)

    assert results == list(range(5))


async def test_cancelled_writer_does_not_withdraw_its_work(ledger):
    ledger.may_commit.clear()

    async with writing(ledger) as queue:
        writers = [asyncio.create_task(queue.write_batched(saying(number))) for number in range(3)]
        await asyncio.sleep(0)
        writers[1].cancel()
        ledger.may_commit.set()
        outcomes = await asyncio.gather(*writers, return_exceptions=True)

    assert [value for commit in ledger.commits for value in commit] == [0, 1, 2]
    assert isinstance(outcomes[1], asyncio.CancelledError)


async def test_closing_commits_queued_writes_and_refuses_new_ones(ledger):
    queue = WriteQueue(ledger.commit, batch=2)
    writers = [asyncio.create_task(queue.write_batched(saying(number))) for number in range(5)]
    await asyncio.sleep(0)

    await queue.close()

    assert await asyncio.gather(*writers) == list(range(5))
    with pytest.raises(StoreUnavailable, match="closed"):
        await queue.write_batched(saying(5))


async def test_concurrent_chats_are_stored_except_the_bad_one(chats):
    taken = a_chat()
    await chats.add(taken, [])
    made = [a_chat() for _ in range(40)]

    adding = (chats.add(chat, some_messages(2)) for chat in [*made, a_chat(id=taken.id)])
    *good, bad = await asyncio.gather(*adding, return_exceptions=True)

    assert good == [None] * 40
    assert isinstance(bad, Duplicate)
    stored = (await chats.list(limit=100)).items
    assert {chat.id for chat in stored} == {chat.id for chat in (taken, *made)}
