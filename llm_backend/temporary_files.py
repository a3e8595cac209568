"""Temporary files of requests, and the detection of a full disk."""

import asyncio
import errno
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

log = logging.getLogger(__name__)

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of an `OSError` for a disk, a quota or a file that takes no more bytes."""

_PROBE_BYTES = 64 * 1024


class TemporaryFiles:
    """Temporary files of a process. Their folder counts as full from a write that finds no room
    until a probe finds some; `on_full` is called with the kind of file at each such write."""

    def __init__(self, on_full: Callable[[str], None] = lambda _kind: None) -> None:
        self._on_full = on_full
        self._is_full = False

    def open(self, kind: str) -> IO[bytes]:
        """Opens an unnamed file. Raises `OSError`."""
        with self.writing(kind):
            return tempfile.TemporaryFile()

    @contextmanager
    def writing(self, kind: str) -> Iterator[None]:
        """Records an `OSError` of a full disk within the context, and raises it."""
        try:
            yield
        except OSError as error:
            if error.errno in FULL_DISK:
                self._record(kind)
            raise

    async def has_room(self) -> bool:
        """Returns False while the folder is full."""
        if self._is_full:
            self._is_full = not await asyncio.to_thread(_try_to_write)
            if not self._is_full:
                log.info("temporary_files_have_room")
        return not self._is_full

    def _record(self, kind: str) -> None:
        self._on_full(kind)
        if not self._is_full:
            log.error("temporary_files_full", extra={"kind": kind, "folder": tempfile.gettempdir()})
        self._is_full = True


def _try_to_write() -> bool:
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return file.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
    except OSError as error:  # with any errno: the folder takes no file yet
        log.warning("temporary_files_probe_failed", extra={"reason": str(error)})
        return False
