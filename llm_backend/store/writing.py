"""Group commit: writes that wait at the same time share one transaction, where they may.

A commit costs a flush to the disk whatever it holds, so a queue of writers each with its own commit
is as slow as the disk. Here one task takes what has queued up since the last commit, does it in one
transaction, and only then lets the callers go on: what they have returned from is durable, and the
busier it is the more each flush carries.

Where several transactions run at once, a row that a work has changed is held until the transaction
ends, with all that came after it. Two that hold some rows each and want the other's would wait for
each other, in whatever order works happened to come. So only those share a transaction that hold
nothing another could want, and whoever holds several rows alone takes them in one order for all:

    a file, an upload, a batch, a vector store      several of a kind by their `seq`
    their jobs                                      by `seq`, too
    a response, its conversation, items
    loose blobs, the total of files

What deadlocks all the same is done again: works may be called more than once.

One bad write must not fail its neighbours: a batch that fails is rolled back and its two halves are
tried again, so that the bad one ends up alone in a handful of transactions.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import Connection

from llm_backend.store.errors import StoreDeadlock, StoreUnavailable

__all__ = ["Commit", "Work", "WriteQueue"]

T = TypeVar("T")

DEADLOCKS = 3  # after which a work that was given up for another is not tried again

# Reads or writes on a connection inside a transaction that somebody else begins and ends. It may be
# called more than once, so it changes nothing but the database.
Work = Callable[[Connection], T]

# Does all of the works in one transaction, or none; their results in order.
Commit = Callable[[Sequence[Work[Any]]], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Write:
    work: Work[Any]
    may_share: bool
    settled: asyncio.Future[Any]


class WriteQueue:
    """At most `depth` writes wait, the others for room; `tasks` transactions run at once."""

    def __init__(self, commit: Commit, *, tasks: int = 1, depth: int = 1024, batch: int = 64):
        self._commit = commit
        self._batch = batch
        self._queued: deque[_Write] = deque()
        self._room = asyncio.Semaphore(depth)
        self._arrived = asyncio.Semaphore(0)
        self._is_closing = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(tasks)]

    async def write(self, work: Work[T]) -> T:
        """Do `work` in a transaction of its own; return when it is committed.

        A caller that is cancelled once its work has been queued does not withdraw it.
        """
        return await self._done(work, may_share=False)

    async def share(self, work: Work[T]) -> T:
        """Do `work` in one transaction with others that may share it; else like `write`."""
        return await self._done(work, may_share=True)

    async def close(self) -> None:
        """Take nothing more, finish what is queued."""
        self._is_closing = True
        for _ in self._tasks:
            self._arrived.release()
        await asyncio.gather(*self._tasks)

    async def _done(self, work: Work[T], *, may_share: bool) -> T:
        await self._room.acquire()
        if self._is_closing:
            self._room.release()
            raise StoreUnavailable("The database is being closed.")
        settled = asyncio.get_running_loop().create_future()
        self._queued.append(_Write(work=work, may_share=may_share, settled=settled))
        self._arrived.release()
        return cast(T, await settled)  # the future was made for this work's result

    async def _run(self) -> None:
        while not (self._is_closing and not self._queued):
            await self._arrived.acquire()
            batch = self._take()
            if batch:
                await self._settle(batch)

    def _take(self) -> Sequence[_Write]:
        """The next that waits, with those behind it that it may share a transaction with."""
        taken: list[_Write] = []
        while self._queued and len(taken) < self._batch:
            if taken and not (taken[0].may_share and self._queued[0].may_share):
                break
            taken.append(self._queued.popleft())
        return taken

    async def _settle(self, batch: Sequence[_Write], deadlocks: int = 0) -> None:
        committing = self._commit([write.work for write in batch])
        (outcome,) = await asyncio.gather(committing, return_exceptions=True)
        if isinstance(outcome, BaseException):
            await self._fail(batch, outcome, deadlocks)
            return
        for write, result in zip(batch, outcome, strict=True):
            self._room.release()
            if not write.settled.done():
                write.settled.set_result(result)

    async def _fail(self, batch: Sequence[_Write], error: BaseException, deadlocks: int) -> None:
        middle = len(batch) // 2
        if middle and _is_of_one(error):
            await self._settle(batch[:middle])
            await self._settle(batch[middle:])
            return
        if isinstance(error, StoreDeadlock) and deadlocks < DEADLOCKS:
            await self._settle(batch, deadlocks + 1)
            return
        for write in batch:
            self._room.release()
            if not write.settled.done():
                write.settled.set_exception(error)


def _is_of_one(error: BaseException) -> bool:
    """Whether some of a failed batch may still succeed by themselves."""
    return isinstance(error, StoreDeadlock) or not isinstance(error, StoreUnavailable)
