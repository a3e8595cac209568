"""Private folder for sockets and counters of several processes; removes those of dead servers.

The owner holds a file lock in it while it lives. A killed process cannot remove its folder, but its
lock is released: the next server that starts removes folders without a lock. A folder without a
lock file belongs to a server that is just starting, or was killed during its start.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "llm-backend-"
_LOCK = "owner.lock"
_LOCKED_WITHIN_S = 600.0  # a starting server locks its folder quickly
# Longest path of the folder: the address of a Unix socket holds at most 103 bytes.
_MAX_PATH_BYTES = 90
_SHORT_PARENT = Path("/tmp")  # noqa: S108 # only for `mkdtemp`, if the usual path is too long


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Creates a folder that only this user can enter, with a path short enough for Unix sockets,
    and removes it at the end. Raises `OSError`."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(os.fsencode(folder)) > _MAX_PATH_BYTES:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SHORT_PARENT))
    try:
        with _lock_folder(folder):
            sweep(folder.parent)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    # Renamed once it is locked, so that a sweep never finds it unlocked.
    unnamed = folder / f"{_LOCK}.new"
    with unnamed.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unnamed.rename(folder / _LOCK)
        yield


def sweep(parent: Path | None = None) -> None:
    """Removes this user's folders of dead owners in `parent`, by default the folder of temporary
    files."""
    for folder in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        # It is locked, of another user, of another kind, or just being removed.
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
                _remove_if_orphaned(folder)


def _remove_if_orphaned(folder: Path) -> None:
    try:
        lock = (folder / _LOCK).open("rb")
    except FileNotFoundError:
        if _was_never_locked(folder):
            shutil.rmtree(folder)
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


def _was_never_locked(folder: Path) -> bool:
    """True for the folder of a server that was killed before it had locked it: old, private, and
    without other files."""
    state = folder.stat()
    is_old = time.time() - state.st_mtime > _LOCKED_WITHIN_S
    is_private = state.st_mode & 0o777 == 0o700
    return is_old and is_private and {one.name for one in folder.iterdir()} <= {f"{_LOCK}.new"}
