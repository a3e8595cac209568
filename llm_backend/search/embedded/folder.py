"""The folder of an index on disk: whose it is, what lies in it, what a killed process left."""

import fcntl
import shutil
from pathlib import Path
from typing import IO

from llm_backend.search.base import IndexBusy, IndexUnavailable

__all__ = [
    "copy_of",
    "lock_folder",
    "mend",
    "points_built",
    "remove",
    "remove_collection",
    "replace",
]


def lock_folder(folder: Path) -> IO[bytes]:
    """The folder's lock, held until it is closed. Raises `IndexBusy` if another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "owner.lock").open("a+b")
    except OSError as error:
        raise IndexUnavailable(f"The vector index cannot be opened: {error}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise IndexBusy(
            f"Another process has the vector index in {folder}. Servers that share "
            "vector stores need a Qdrant server: set `qdrant_url`."
        ) from error
    return lock


def mend(folder: Path) -> None:
    """What a process that died while it replaced collections has left is put right."""
    for path in folder.iterdir():
        _mend(path)


def copy_of(path: Path) -> Path:
    """Where a collection lies that is not whole yet."""
    return path.with_name(f"{path.name}.copy")


def points_built(path: Path) -> int:
    """How many points the graph of the collection has."""
    try:
        return int(_note(path).read_text())
    except (FileNotFoundError, ValueError):  # it was never built, or is to be built again
        return 0


def replace(path: Path, points: int) -> None:
    """The collection's copy, whose graph has so many points, takes its place."""
    complete = copy_of(path).rename(path.with_name(f"{path.name}.next"))
    old = path.with_name(f"{path.name}.old")
    path.rename(old)
    complete.rename(path)
    _note(path).write_text(str(points))
    remove(old)


def remove(path: Path) -> None:
    """The folder at `path`, if there is one."""
    if path.exists():
        shutil.rmtree(path)


def remove_collection(path: Path) -> None:
    """The collection and what is noted of it."""
    remove(path)
    _note(path).unlink(missing_ok=True)


def _mend(folder: Path) -> None:
    if folder.suffix == ".next":
        path = folder.with_suffix("")
        if path.exists():
            remove(folder)
        else:  # it died between two renames
            folder.rename(path)
    elif folder.suffix in (".copy", ".old"):
        remove(folder)


def _note(path: Path) -> Path:
    """A file that says how many points the graph has."""
    return path.with_name(f"{path.name}.built")
