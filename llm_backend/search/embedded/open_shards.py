"""The collections of a folder that are open: as many at once as may be, those least used closed.

All of it belongs to one thread, and nothing is opened before the folder is held.
"""

import os
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llm_backend.search.base import IndexUnavailable
from llm_backend.search.embedded.folder import (
    copy_of,
    lock_folder,
    mend,
    points_built,
    remove_collection,
    replace,
)

if TYPE_CHECKING:  # 4 MB that only those pay who search
    from llm_backend.search.embedded.shard import Shard

__all__ = ["OpenShards"]


class OpenShards:
    """The shards of `folder`, `limit` of which are open at once. `unbuilt` tells how many points of
    a collection were written since its graph was built."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock: IO[bytes] | None = None
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self.unbuilt: dict[str, int] = {}

    def hold(self) -> None:
        """Take the folder for this process, if it has not been taken. Raises `IndexUnavailable`."""
        if self._lock is not None:
            return
        lock = lock_folder(self._folder)
        try:
            mend(self._folder)
        except OSError as error:
            lock.close()
            raise IndexUnavailable(
                f"What a process that died has left in {self._folder} cannot be put right: {error}."
            ) from error
        self._lock = lock

    def name(self) -> str:
        """The folder's own name, written where its lock is."""
        assert self._lock is not None, "it is held before any work"
        self._lock.seek(0)
        name = self._lock.read().decode()
        if not name:
            name = uuid.uuid4().hex
            self._lock.write(name.encode())
            self._lock.flush()
            os.fsync(self._lock.fileno())
        return name

    def path(self, collection: str) -> Path:
        """Where a collection is, or would be."""
        return self._folder / collection

    def get(self, collection: str) -> "Shard | None":
        """A collection's shard, opened if it was not; None where there is no such collection."""
        shard = self._open.get(collection)
        if shard is not None:
            self._open.move_to_end(collection)
            return shard
        path = self.path(collection)
        if not path.is_dir():
            return None
        shard = _open_shard(path)
        self.unbuilt[collection] = max(0, shard.count() - points_built(path))
        self._keep(collection, shard)
        return shard

    def create(self, collection: str, dimensions: int) -> None:
        """Make an empty collection unless it exists."""
        if self.get(collection) is None:
            self.unbuilt[collection] = 0
            self._keep(collection, _create_shard(self.path(collection), dimensions))

    def drop(self, collection: str) -> None:
        """Remove a collection and all that it holds."""
        shard = self._open.pop(collection, None)
        if shard is not None:
            shard.close()
        remove_collection(self.path(collection))
        self.unbuilt.pop(collection, None)

    def replace(self, collection: str, written: list[Callable[["Shard"], None]]) -> None:
        """Put a collection's copy in its place, once what was `written` meanwhile is in it, too."""
        path = self.path(collection)
        shard = _open_shard(copy_of(path))
        count = shard.count()
        for work in written:
            work(shard)
        shard.flush()
        shard.close()
        self._let_go(collection)
        replace(path, count)

    def close(self) -> None:
        """Let go of all of them, and of the folder."""
        for collection in list(self._open):
            self._let_go(collection)
        if self._lock is not None:
            self._lock.close()

    def _keep(self, collection: str, shard: "Shard") -> None:
        self._open[collection] = shard
        while len(self._open) > self._limit:
            _, oldest = self._open.popitem(last=False)
            oldest.flush()
            oldest.close()

    def _let_go(self, collection: str) -> None:
        shard = self._open.pop(collection, None)
        if shard is not None:
            shard.flush()
            shard.close()


def _open_shard(path: Path) -> "Shard":
    from llm_backend.search.embedded.shard import Shard

    return Shard(path)


def _create_shard(path: Path, dimensions: int) -> "Shard":
    """Made beside its place, so that a collection is there whole or not at all."""
    from llm_backend.search.embedded.shard import Shard

    copy = copy_of(path)
    shard = Shard(copy, dimensions)
    shard.flush()
    shard.close()
    copy.rename(path)
    return Shard(path)
