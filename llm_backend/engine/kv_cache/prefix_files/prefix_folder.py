"""Folder of one model's prefix files. Threads read and write them while native code, which releases
the interpreter lock, computes passes.

Several processes may share a folder: each file is whole or absent, and a missing file is tolerated.
"""

import contextlib
import logging
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from llm_backend.durations import DAY_S
from llm_backend.engine.kv_cache.blocks import block_hashes, tokens_name
from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.kv_cache.prefix_files.model_identity import (
    FOLDER_NAME,
    folder_name,
    model_digest,
)
from llm_backend.engine.kv_cache.prefix_files.prefix_file import (
    BadPrefix,
    file_bytes,
    read_prefix,
    read_tokens,
    write_prefix,
)
from llm_backend.engine.kv_cache.prefix_index import PrefixEntry, PrefixIndex
from llm_backend.engine.messages import LoadModel, PrefixLimits
from llm_backend.engine.model import LoadError

_log = logging.getLogger("llm_backend.engine.kv_cache.prefix_files")

_SUFFIX = ".prefix"
_UNFINISHED_S = 3600  # age at which an unfinished file is removed
_UNUSED_S = 30 * DAY_S  # time without an engine after which a model's folder is removed


@dataclass(frozen=True, kw_only=True)
class RestoredPrefix:
    """Contents of a prefix file, and the seconds that reading it took."""

    prefix: Prefix
    seconds: float


class PrefixFolder:
    """The prefix files in `path`, computed by the model with the digest `model`. Owned by one
    thread."""

    def __init__(
        self, path: Path, model: bytes, limits: PrefixLimits, executor: Executor | None = None
    ) -> None:
        self._path = path
        self._model = model
        self._limits = limits
        self._executor = executor or ThreadPoolExecutor(2, "prefixes")  # one reads, one writes
        self.index = PrefixIndex(limits.bytes)

    @property
    def minimum_tokens(self) -> int:
        """Minimum number of tokens for which a file is written."""
        return self._limits.tokens

    def scan(self) -> None:
        """Indexes the files of the folder; those of other models and those beyond the size limit
        are removed. Raises `OSError`."""
        files = sorted(self._path.glob(f"*{_SUFFIX}"), key=_last_use)
        for path in files:
            try:
                entry = self._entry(read_tokens(path, self._model), path.stat().st_size)
                if path != self._file(entry.name):
                    raise BadPrefix(f"{path.name} has a name that does not match its tokens")
                self.index.add(entry)
            except FileNotFoundError:  # another process has just removed it
                continue
            except BadPrefix as bad:
                _log.warning("engine.prefix_removed reason=%s", bad)
                path.unlink(missing_ok=True)
        self._remove(self._remove_from_index(self.index.find_evictable(0, ()) or ()))
        for path in self._path.glob(f"*{_SUFFIX}.*.part"):
            if time.time() - _last_use(path) > _UNFINISHED_S:
                path.unlink(missing_ok=True)

    def read(self, name: str) -> "Future[RestoredPrefix]":
        """Begins to read a file. The future may raise `OSError` or `BadPrefix`."""
        self.index.mark_used(name)
        return self._executor.submit(self._read, self._file(name))

    def exceeds_limit(self, tokens: list[int], state_bytes: int) -> bool:
        """True if a file with a state of this size would be larger than all files may be."""
        return file_bytes(len(tokens), state_bytes) > self._limits.bytes

    def has_room(
        self,
        tokens: list[int],
        state_bytes: int,
        retained: Collection[str],
        *,
        can_roll_back: bool = True,
    ) -> bool:
        """True if `write` would write a file with a state of this size."""
        entry = self._entry(tokens, file_bytes(len(tokens), state_bytes))
        removed = self.index.find_removable(entry, retained, can_roll_back=can_roll_back)
        return removed is not None

    def write(
        self, prefix: Prefix, retained: Collection[str], *, can_roll_back: bool = True
    ) -> "Future[PrefixEntry] | None":
        """Begins to write a file, after removing the files that it replaces or evicts; the future
        may raise `OSError`. None if the size limit would require eviction of `retained` files."""
        entry = self._entry(prefix.tokens, file_bytes(len(prefix.tokens), prefix.state.size))
        evicted = self.index.find_removable(entry, retained, can_roll_back=can_roll_back)
        if evicted is None:
            return None
        return self._executor.submit(self._write, prefix, entry, self._remove_from_index(evicted))

    def remove(self, name: str) -> None:
        """Removes a file in the background."""
        self._executor.submit(self._remove, self._remove_from_index([name]))

    def close(self) -> None:
        """Stops: no further file is read or written."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _read(self, path: Path) -> RestoredPrefix:
        started_at = time.monotonic()
        prefix = read_prefix(path, self._model)
        return RestoredPrefix(prefix=prefix, seconds=time.monotonic() - started_at)

    def _write(self, prefix: Prefix, entry: PrefixEntry, evicted: list[Path]) -> PrefixEntry:
        self._remove(evicted)
        self._path.mkdir(mode=0o700, exist_ok=True)  # another server may have removed it as unused
        write_prefix(self._file(entry.name), self._model, prefix)
        return entry

    def _remove_from_index(self, names: Iterable[str]) -> list[Path]:
        """Removes names from the index, and returns the paths of their files."""
        removed = list(names)
        for name in removed:
            self.index.remove(name)
        return [self._file(name) for name in removed]

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning(
                    "engine.prefix_not_removed file=%s reason=%s", path.name, error.strerror
                )

    def _entry(self, tokens: list[int], size: int) -> PrefixEntry:
        return PrefixEntry(
            name=tokens_name(tokens), tokens=len(tokens), size=size, blocks=block_hashes(tokens)
        )

    def _file(self, name: str) -> Path:
        return self._path / f"{name}{_SUFFIX}"


def open_folder(config: LoadModel, state_format: str) -> PrefixFolder | None:
    """Opens the folder of the model, with mode 0700; None if prefix files are disabled. Raises
    `LoadError` if the folder cannot be used."""
    if config.prefixes is None:
        return None
    shared = Path(config.prefixes.folder)
    path = shared / folder_name(config)
    try:
        shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
        path.touch()
        _remove_unused(shared)
        folder = PrefixFolder(path, model_digest(config, state_format), config.prefixes)
        folder.scan()
    except OSError as error:
        raise LoadError(f"prefix files cannot be stored in {path}: {error.strerror}") from error
    _log.info("engine.prefix_files files=%s bytes=%s", len(folder.index), folder.index.bytes)
    return folder


def _remove_unused(shared: Path) -> None:
    """Removes the folders of models that no engine has used for `_UNUSED_S`."""
    for path in shared.iterdir():
        if not FOLDER_NAME.fullmatch(path.name) or time.time() - _last_use(path) < _UNUSED_S:
            continue
        for file in (*path.glob(f"*{_SUFFIX}"), *path.glob(f"*{_SUFFIX}.*.part")):
            file.unlink(missing_ok=True)
        # a folder with files of another program stays
        with contextlib.suppress(OSError):
            path.rmdir()


def _last_use(path: Path) -> float:
    """Time of the last write or use; 0 if the file was just removed."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
