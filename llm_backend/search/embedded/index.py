"""Embedded vector index over a folder, which one process owns by a file lock.

One thread serves all calls in turn. When a collection has grown much, another process rebuilds
its graph in a copy. Meanwhile the collection can be searched and written; its writes are applied to
the copy, too, before the copy replaces it.
"""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from llm_backend.backoff import backoff_delay_s
from llm_backend.search.base import (
    Attribute,
    Condition,
    IndexPoint,
    IndexUnavailable,
    NoCollection,
    ScoredPoint,
    SparseVector,
)
from llm_backend.search.embedded.folder import built_points, copy_path, remove
from llm_backend.search.embedded.open_shards import OpenShards

if TYPE_CHECKING:  # 4 MB, only for processes that search
    from llm_backend.search.embedded.shard import Shard

T = TypeVar("T")
Work = Callable[["Shard"], T]

OPEN_COLLECTIONS = 64  # collections open at the same time; each has a thread
GROWTH = 20_000  # points without a graph: scanning them takes two milliseconds
GROWTH_SHARE = 0.5  # unbuilt points, as a share of the graph's, at which the graph is rebuilt
RETRY_S = 60.0  # before a failed optimization is tried again; doubled by each further failure
RETRY_LIMIT_S = 3600.0

log = logging.getLogger(__name__)


class EmbeddedIndex:
    """The index in `folder`, opened by its first call."""

    def __init__(
        self,
        folder: Path,
        *,
        growth: int = GROWTH,
        collections: int = OPEN_COLLECTIONS,
        retry_s: float = RETRY_S,
    ) -> None:
        self._growth = growth
        self._retry_s = retry_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._copying_thread = ThreadPoolExecutor(1, thread_name_prefix="vector-copies")
        self._copying = asyncio.Lock()  # one copy at a time; taken before a write lock
        # Used in the thread only, except `path` and `unbuilt`.
        self._shards = OpenShards(folder, collections)
        # A lock lives as long as a call holds it or waits for it.
        self._write_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._journals: dict[str, list[Work[None]]] = {}  # of collections that are being optimized
        self._optimizing: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False

    async def name(self) -> str:
        """Returns the unique name that is written beside the lock."""
        return await self._run_in_thread(self._shards.name)

    async def create(self, collection: str, dimensions: int) -> None:
        """Creates an empty collection unless it exists."""
        await self._run_in_thread(self._shards.create, collection, dimensions)

    async def drop(self, collection: str) -> None:
        """Deletes a collection with its points."""
        task = self._optimizing.pop(collection, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        async with self._write_lock(collection):
            await self._run_in_thread(self._shards.drop, collection)

    async def upsert(self, collection: str, points: Sequence[IndexPoint]) -> None:
        """Inserts or replaces points."""
        await self._write(collection, lambda shard: shard.upsert(points), len(points))

    async def remove(self, collection: str, document: str) -> None:
        """Deletes a document's points."""
        await self._write(collection, lambda shard: shard.remove(document), must_exist=False)

    async def set_attributes(
        self, collection: str, document: str, attributes: Mapping[str, Attribute]
    ) -> None:
        """Replaces the attributes of a document's points."""
        await self._write(collection, lambda shard: shard.set_attributes(document, attributes))

    async def search_vectors(
        self, collection: str, vector: Sequence[float], *, limit: int, condition: Condition | None
    ) -> Sequence[ScoredPoint]:
        """Returns the most similar points."""
        return await self._read(
            collection, lambda shard: shard.search_vectors(vector, limit, condition)
        )

    async def search_keywords(
        self, collection: str, words: SparseVector, *, limit: int, condition: Condition | None
    ) -> Sequence[ScoredPoint]:
        """Returns the points with the highest BM25 score for these words."""
        return await self._read(
            collection, lambda shard: shard.search_keywords(words, limit, condition)
        )

    async def check(self) -> None:
        """Locks the folder. Raises `IndexUnavailable` if another process owns it."""
        await self._run_in_thread(self._shards.lock)

    async def wait_idle(self) -> None:
        """Waits until no collection is being optimized."""
        while self._optimizing:
            await asyncio.wait(self._optimizing.values())

    async def close(self) -> None:
        """Closes the shards and unlocks the folder."""
        self._is_closing = True
        for task in list(self._optimizing.values()):
            task.cancel()
        if self._optimizing:
            await asyncio.wait(self._optimizing.values())
        await asyncio.get_running_loop().run_in_executor(self._thread, self._shards.close)
        self._thread.shutdown()
        self._copying_thread.shutdown()

    async def _read(self, collection: str, work: Work[list[ScoredPoint]]) -> list[ScoredPoint]:
        def reading() -> list[ScoredPoint]:
            shard = self._shards.get(collection)
            if shard is None:
                raise NoCollection(collection)
            return work(shard)

        return await self._run_in_thread(reading)

    async def _write(
        self, collection: str, work: Work[None], points: int = 0, *, must_exist: bool = True
    ) -> None:
        def writing() -> None:
            shard = self._shards.get(collection)
            if shard is None:
                if must_exist:
                    raise NoCollection(collection)
                return
            work(shard)
            shard.flush()
            self._shards.unbuilt[collection] += points

        async with self._write_lock(collection):
            await self._run_in_thread(writing)
            if collection in self._journals:
                self._journals[collection].append(work)
        self._optimize_if_grown(collection)

    async def _run_in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        def run() -> T:
            self._shards.lock()
            try:
                return work(*arguments)
            except IndexUnavailable:
                raise
            except Exception as error:  # Qdrant's errors have no class of their own
                raise IndexUnavailable(f"The vector index failed: {error}") from error

        if self._is_closing:
            raise IndexUnavailable("The vector index is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _write_lock(self, collection: str) -> asyncio.Lock:
        return self._write_locks.setdefault(collection, asyncio.Lock())

    def _optimize_if_grown(self, collection: str) -> None:
        built = built_points(self._shards.path(collection))
        unbuilt = self._shards.unbuilt.get(collection, 0)
        if (
            self._is_closing
            or unbuilt < max(self._growth, built * GROWTH_SHARE)
            or collection in self._optimizing
        ):
            return
        task = asyncio.create_task(self._optimize_with_retries(collection))
        self._optimizing[collection] = task
        task.add_done_callback(lambda done: self._finish_optimizing(collection, done))

    def _finish_optimizing(self, collection: str, done: asyncio.Task[None]) -> None:
        self._optimizing.pop(collection, None)
        if not done.cancelled():
            self._optimize_if_grown(collection)  # because of writes during the optimization

    async def _optimize_with_retries(self, collection: str) -> None:
        failures = 0
        while True:
            try:
                await self._optimize(collection)
                return
            except (OSError, IndexUnavailable) as error:
                failures += 1
                delay_s = backoff_delay_s(self._retry_s, failures, RETRY_LIMIT_S)
                fields = {"collection": collection, "reason": str(error), "retry_s": delay_s}
                log.warning("vectors_not_optimized", extra=fields)
                await asyncio.sleep(delay_s)

    async def _optimize(self, collection: str) -> None:
        path = self._shards.path(collection)
        copy = copy_path(path)
        loop = asyncio.get_running_loop()
        try:
            async with self._copying, self._write_lock(collection):
                self._shards.unbuilt[collection] = 0
                await loop.run_in_executor(self._copying_thread, shutil.copytree, path, copy)
                self._journals[collection] = []
            await _run_optimizer(copy)
            async with self._write_lock(collection):
                await self._run_in_thread(
                    self._shards.replace, collection, self._journals[collection]
                )
            log.info("vectors_optimized", extra={"collection": collection})
        finally:
            self._journals.pop(collection, None)
            # A cancelled call goes on in its thread: the copy is removed after both threads' calls.
            await loop.run_in_executor(self._thread, _do_nothing)
            await loop.run_in_executor(self._copying_thread, remove, copy)


def _do_nothing() -> None:
    """Submitted to a thread, it ends after the thread's earlier calls."""


async def _run_optimizer(copy: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "llm_backend.search.embedded.optimizer",
        str(copy),
        stdin=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise IndexUnavailable(f"The process that optimizes vectors ended with {code}.")
