"""Write queue of a database: writes that wait at the same time share a commit, where they may.

A commit costs a flush to the disk, however much it contains. A queue of writers with a commit each
is therefore as slow as the disk. Here a task takes the queued writes that may share a commit,
runs them in one transaction, and then resumes their callers. So a write is durable when it returns,
and with more load each flush carries more writes.

Where several transactions run concurrently, a changed row stays locked until its transaction ends.
Two transactions that lock some rows each and then need the other's would deadlock. So a unit of
work shares a transaction only if no other one needs the rows that it locks. A unit of work that
locks several rows locks them in one global order:

    a file, an upload, a batch, a vector store      several of a kind by their `seq`
    their jobs                                      by `seq`, too
    a response, its conversation, items
    orphaned blobs, the total of files

A unit of work that is in a deadlock all the same is retried: it may be called more than once.

One bad write must not fail its neighbours. A batch that fails is rolled back and its two halves are
retried, so that the bad write ends up alone after a handful of transactions.

`GroupCommit` of the controllers makes one unit of work of many chats.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import Connection

from llm_backend.store.errors import StoreDeadlock, StoreUnavailable

T = TypeVar("T")

DEADLOCK_RETRIES = 3  # of a unit of work

# Reads or writes on a connection, inside a transaction that the database engine begins and ends. It
# may be called more than once, so it changes nothing but the database.
UnitOfWork = Callable[[Connection], T]

# Runs all units of work in one transaction, or none; returns their results in order.
Commit = Callable[[Sequence[UnitOfWork[Any]]], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Write:
    work: UnitOfWork[Any]
    is_batched: bool
    settled: asyncio.Future[Any]


class WriteQueue:
    """Queue of writes. At most `depth` writes wait, and further callers block; `tasks` transactions
    run concurrently."""

    def __init__(
        self, commit: Commit, *, tasks: int = 1, depth: int = 1024, batch: int = 64
    ) -> None:
        self._commit = commit
        self._batch = batch
        self._queued: deque[_Write] = deque()
        self._capacity = asyncio.Semaphore(depth)
        self._arrived = asyncio.Semaphore(0)
        self._is_closing = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(tasks)]

    async def write(self, work: UnitOfWork[T]) -> T:
        """Runs `work` in a transaction of its own; returns when it is committed.

        Cancelling the caller does not withdraw queued work.
        """
        return await self._submit(work, is_batched=False)

    async def write_batched(self, work: UnitOfWork[T]) -> T:
        """Runs `work` in one transaction with others that may share it; otherwise like `write`."""
        return await self._submit(work, is_batched=True)

    async def close(self) -> None:
        """Refuses new writes, and commits those that are queued."""
        self._is_closing = True
        for _ in self._tasks:
            self._arrived.release()
        await asyncio.gather(*self._tasks)

    async def _submit(self, work: UnitOfWork[T], *, is_batched: bool) -> T:
        await self._capacity.acquire()
        if self._is_closing:
            self._capacity.release()
            raise StoreUnavailable("The database is being closed.")
        settled = asyncio.get_running_loop().create_future()
        self._queued.append(_Write(work=work, is_batched=is_batched, settled=settled))
        self._arrived.release()
        try:
            return cast(T, await settled)  # the future was made for this work's result
        finally:
            del settled  # its error refers to this frame: the cycle would need the collector

    async def _run(self) -> None:
        while not (self._is_closing and not self._queued):
            await self._arrived.acquire()
            if batch := self._take():
                await self._commit_batch(batch)
            del batch  # frees the written rows before the wait for the next batch

    def _take(self) -> Sequence[_Write]:
        """The next write, and those after it that may share its transaction."""
        taken: list[_Write] = []
        while self._queued and len(taken) < self._batch:
            if taken and not (taken[0].is_batched and self._queued[0].is_batched):
                break
            taken.append(self._queued.popleft())
        return taken

    async def _commit_batch(self, batch: Sequence[_Write], deadlocks: int = 0) -> None:
        committing = self._commit([write.work for write in batch])
        (outcome,) = await asyncio.gather(committing, return_exceptions=True)
        if isinstance(outcome, BaseException):
            await self._fail(batch, outcome, deadlocks)
            return
        for write, result in zip(batch, outcome, strict=True):
            self._capacity.release()
            if not write.settled.done():
                write.settled.set_result(result)

    async def _fail(self, batch: Sequence[_Write], error: BaseException, deadlocks: int) -> None:
        middle = len(batch) // 2
        if middle and _may_partly_succeed(error):
            await self._commit_batch(batch[:middle])
            await self._commit_batch(batch[middle:])
            return
        if isinstance(error, StoreDeadlock) and deadlocks < DEADLOCK_RETRIES:
            await self._commit_batch(batch, deadlocks + 1)
            return
        for write in batch:
            self._capacity.release()
            if not write.settled.done():
                write.settled.set_exception(error)


def _may_partly_succeed(error: BaseException) -> bool:
    """True if some units of work of a failed batch may still succeed by themselves."""
    return isinstance(error, StoreDeadlock) or not isinstance(error, StoreUnavailable)
