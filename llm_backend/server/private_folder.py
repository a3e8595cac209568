"""A folder for the sockets and counters of several processes, and the end of those that were left.

Its owner holds a lock on a file in it for as long as it lives. A process that is killed cannot
remove its folder, but its lock is gone: the next server that starts removes what has none.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["private_folder", "sweep"]

_PREFIX = "llm-backend-"
_LOCK = "owner.lock"
_BYTES = 90  # of its path at most: the address of a Unix socket in it has room for 103
_SHORT = Path("/tmp")  # where the configured folder's path is too long


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, short enough for Unix sockets; gone at the end.
    Raises `OSError`."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(os.fsencode(folder)) > _BYTES:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SHORT))
    try:
        with _lock_folder(folder):
            sweep(folder.parent)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    unnamed = folder / f"{_LOCK}.new"  # named when it is locked: nobody finds it before
    with unnamed.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unnamed.rename(folder / _LOCK)
        yield


def sweep(parent: Path | None = None) -> None:
    """Remove this user's folders whose owners have died; where temporary files are, if it is not
    said."""
    for folder in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is held, not ours, none of these, or going already
            if not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    with (folder / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
