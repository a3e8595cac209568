"""Folder of an embedded index: its lock, its files, and recovery after a crash."""

import fcntl
import shutil
from pathlib import Path
from typing import IO

from llm_backend.search.base import IndexBusy, IndexUnavailable


def lock_folder(folder: Path) -> IO[bytes]:
    """Locks the folder until the file is closed. Raises `IndexBusy` if another process has it."""
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


def recover(folder: Path) -> None:
    """Recovers the collections of the folder after a crash while one was replaced."""
    for path in folder.iterdir():
        _recover_collection(path)


def copy_path(path: Path) -> Path:
    """Returns the path of a collection that is still incomplete."""
    return path.with_name(f"{path.name}.copy")


def built_points(path: Path) -> int:
    """Returns the number of points in the graph of the collection."""
    try:
        return int(_note(path).read_text())
    except (FileNotFoundError, ValueError):  # never built, or to be rebuilt
        return 0


def replace(path: Path, points: int) -> None:
    """Replaces the collection by its copy, whose graph has this many points."""
    complete = copy_path(path).rename(path.with_name(f"{path.name}.next"))
    old = path.with_name(f"{path.name}.old")
    path.rename(old)
    complete.rename(path)
    _note(path).write_text(str(points))
    remove(old)


def remove(path: Path) -> None:
    """Removes the folder at `path`, if it exists."""
    if path.exists():
        shutil.rmtree(path)


def remove_collection(path: Path) -> None:
    """Removes the collection and its note of built points."""
    remove(path)
    _note(path).unlink(missing_ok=True)


def _recover_collection(folder: Path) -> None:
    if folder.suffix == ".next":
        path = folder.with_suffix("")
        if path.exists():
            remove(folder)
        else:  # the crash was between two renames
            folder.rename(path)
    elif folder.suffix in (".copy", ".old"):
        remove(folder)


def _note(path: Path) -> Path:
    """Returns the path of the note with the number of points in the graph."""
    return path.with_name(f"{path.name}.built")
