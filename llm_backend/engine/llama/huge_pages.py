"""Weights in huge pages.

A pass of one stream reads every weight once, and in pages of 4 KiB the processor has to find out
256 times for each megabyte where the next page is: a fifth of the pass. So what weights are read
into asks for pages of 2 MiB (`MADV_HUGEPAGE`) before anything is written to it. Weights that are
mapped from their file lie in the pages of the system's cache of files, which are small on most
file systems: they are mapped only where a copy of them would leave too little memory.
"""

import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_backend.engine.llama.processor_buffers import ADVISE, Buffer, seen_buffers
from llm_backend.model_files import available_memory_bytes, model_parts

__all__ = ["has_room_for_copy", "in_huge_pages"]

_log = logging.getLogger(__name__)

_HUGE = 1 << 21  # bytes of a huge page where it matters: x86-64, and ARM64 with pages of 4 KiB
_SHARE = 0.5  # of the memory that is free; the rest is for cells, and for others


def has_room_for_copy(model_path: Path) -> bool:
    """Whether the weights of a file fit in memory of their own and leave enough of it."""
    parts = [part for part in model_parts(model_path) if part.exists()]  # who loads tells of one
    size = sum(part.stat().st_size for part in parts)
    return size <= available_memory_bytes() * _SHARE


@contextmanager
def in_huge_pages() -> Iterator[None]:
    """The processor's buffers that are made meanwhile lie in huge pages as far as the system has
    them: where it has none, or lets nobody ask, they are as ever."""
    with seen_buffers(_advise):
        yield


def _advise(buffer: Buffer) -> None:
    first = -(-buffer.context // _HUGE) * _HUGE
    last = (buffer.context + buffer.size) // _HUGE * _HUGE
    if first < last and ADVISE is not None and ADVISE(first, last - first, mmap.MADV_HUGEPAGE):
        _log.debug("engine.no_huge_pages bytes=%d", last - first)
