"""Private folder for sockets and counters of several processes; removes those of dead servers.

The owner holds a file lock in it while it lives. A killed process cannot remove its folder, but its
lock is released: the next server that starts removes folders without a lock.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "llm-backend-"
_LOCK = "owner.lock"
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
    # Renamed when it is locked: a sweep cannot find it before.
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
    with (folder / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
