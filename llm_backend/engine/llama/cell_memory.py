"""Lazily allocated memory of KV cells.

llama.cpp clears the cells of a new context by writing zeros, by which all of them become resident,
used or not. Fresh memory is zero already. So while a context is made, clearing returns whole pages
to the kernel instead (`MADV_DONTNEED`): they read as zeros, and take memory once they are written.
The contents of cells are the same; their memory grows with use.
"""

import ctypes
import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from llm_backend.engine.llama.cpu_buffers import (
    ADVISE,
    CLEAR,
    Buffer,
    address_of,
    hook_buffers,
)

_log = logging.getLogger(__name__)

_LARGE = 1 << 20  # bytes; with less there is nothing to gain


class CellMemory:
    """Must outlive the contexts that were made with it: it clears their buffers."""

    def __init__(self) -> None:
        self.is_lazy = False
        self._our_clear = CLEAR(_clear)

    @contextmanager
    def allocate_lazily(self, *, is_wanted: bool = True) -> Iterator[None]:
        """Context manager: contexts that are made in it allocate memory of cells lazily, if that
        is wanted and the system and the libraries support it; `is_lazy` is the result."""
        if not is_wanted:
            yield
            return
        with hook_buffers(self._replace_clear) as self.is_lazy:
            if not self.is_lazy:
                _log.debug("engine.cells_not_lazy")
            yield

    def _replace_clear(self, buffer: Buffer) -> None:
        buffer.clear = address_of(self._our_clear)


def _clear(address: int, value: int) -> None:
    """Replaces a buffer's `clear`."""
    buffer = Buffer.from_address(address)
    if value or not _release_pages(buffer.context, buffer.size):
        ctypes.memset(buffer.context, value, buffer.size)


def _release_pages(start: int, size: int) -> bool:
    """Zero memory by returning its whole pages to the kernel; False if that fails, for locked or
    huge pages, say."""
    if size < _LARGE or ADVISE is None:
        return False
    end = start + size
    first, last = _page(start + mmap.PAGESIZE - 1), _page(end)
    if ADVISE(first, last - first, mmap.MADV_DONTNEED) != 0:
        return False
    ctypes.memset(start, 0, first - start)
    ctypes.memset(last, 0, end - last)
    return True


def _page(address: int) -> int:
    """The beginning of an address's page."""
    return address - address % mmap.PAGESIZE
