"""LRU cache of the open collections of a folder.

All calls, except those of `path`, come from one thread. The folder must be locked before a
collection is opened.
"""

import os
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llm_backend.search.base import IndexUnavailable
from llm_backend.search.embedded.folder import (
    built_points,
    copy_path,
    lock_folder,
    recover,
    remove_collection,
    replace,
)

if TYPE_CHECKING:  # 4 MB of memory, only in processes that search
    from llm_backend.search.embedded.shard import Shard


class OpenShards:
    """Shards of `folder`, each with one collection; at most `limit` of them are open. `unbuilt`
    counts, by collection, the points that are not in its search graph yet."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock: IO[bytes] | None = None
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self.unbuilt: dict[str, int] = {}

    def lock(self) -> None:
        """Locks the folder, unless this process already has. Raises `IndexUnavailable`."""
        if self._lock is not None:
            return
        lock = lock_folder(self._folder)
        try:
            recover(self._folder)
        except OSError as error:
            lock.close()
            raise IndexUnavailable(
                f"The vector index in {self._folder} cannot be recovered after a crash: {error}."
            ) from error
        self._lock = lock

    def name(self) -> str:
        """Returns the folder's unique name, which is stored in its lock file."""
        assert self._lock is not None, "the folder is locked before any work"
        self._lock.seek(0)
        name = self._lock.read().decode()
        if not name:
            name = uuid.uuid4().hex
            self._lock.write(name.encode())
            self._lock.flush()
            os.fsync(self._lock.fileno())
        return name

    def path(self, collection: str) -> Path:
        """Returns the path of a collection, existing or not."""
        return self._folder / collection

    def get(self, collection: str) -> "Shard | None":
        """Returns a collection's shard, opened if necessary; None for a missing collection."""
        shard = self._open.get(collection)
        if shard is not None:
            self._open.move_to_end(collection)
            return shard
        path = self.path(collection)
        if not path.is_dir():
            return None
        shard = _open_shard(path)
        self.unbuilt[collection] = max(0, shard.count() - built_points(path))
        self._cache_shard(collection, shard)
        return shard

    def create(self, collection: str, dimensions: int) -> None:
        """Creates an empty collection unless it exists."""
        if self.get(collection) is None:
            self.unbuilt[collection] = 0
            self._cache_shard(collection, _create_shard(self.path(collection), dimensions))

    def drop(self, collection: str) -> None:
        """Deletes a collection with its points."""
        shard = self._open.pop(collection, None)
        if shard is not None:
            shard.close()
        remove_collection(self.path(collection))
        self.unbuilt.pop(collection, None)

    def replace(self, collection: str, journal: list[Callable[["Shard"], None]]) -> None:
        """Replaces a collection by its rebuilt copy, after applying `journal` to the copy: the
        writes since it was made."""
        path = self.path(collection)
        shard = _open_shard(copy_path(path))
        count = shard.count()
        for write in journal:
            write(shard)
        shard.flush()
        shard.close()
        self._close_shard(collection)
        replace(path, count)

    def close(self) -> None:
        """Closes all shards and unlocks the folder."""
        for collection in list(self._open):
            self._close_shard(collection)
        if self._lock is not None:
            self._lock.close()

    def _cache_shard(self, collection: str, shard: "Shard") -> None:
        self._open[collection] = shard
        while len(self._open) > self._limit:
            self._close_shard(next(iter(self._open)))

    def _close_shard(self, collection: str) -> None:
        shard = self._open.pop(collection, None)
        if shard is not None:
            shard.flush()
            shard.close()


def _open_shard(path: Path) -> "Shard":
    from llm_backend.search.embedded.shard import Shard

    return Shard(path)


def _create_shard(path: Path, dimensions: int) -> "Shard":
    """Creates the shard under another path and renames it, so that no crash leaves an incomplete
    one."""
    from llm_backend.search.embedded.shard import Shard

    copy = copy_path(path)
    shard = Shard(copy, dimensions)
    shard.flush()
    shard.close()
    copy.rename(path)
    return Shard(path)
