"""Weights in huge pages.

A pass of one sequence reads every weight once. With pages of 4 KiB the processor has to translate
256 addresses for each megabyte, which takes up to a sixth of the pass. So the buffers of weights
ask for pages of 2 MiB (`MADV_HUGEPAGE`) before they are written. Weights that are mapped from their
file have small pages, even where the page cache holds large ones.

When memory is short, the system can drop mapped pages but no copy. So weights are only copied if
they fit into half of the free memory, and one engine of a machine at a time checks the free memory
and loads.
"""

import logging
import mmap
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llm_backend.engine.llama.cpu_buffers import ADVISE, Buffer, hook_buffers
from llm_backend.model_files import available_memory_bytes, model_parts
from llm_backend.operating_system import SYS, bind_name, read_kernel_file

_log = logging.getLogger(__name__)

_HUGE = 1 << 21  # bytes of a huge page where it matters: x86-64, and ARM64 with pages of 4 KiB
_LOCK = f"llm-backend/loading/{os.getuid()}"
_SETTING = SYS / "kernel/mm/transparent_hugepage/enabled"
_SHARE = 0.5  # share of the free memory; the rest is for cells, and for other processes
_WAIT_S = 20.0  # for the lock; a fraction of `start_timeout_s`
_POLL_INTERVAL_S = 0.05  # polling interval of the lock


@contextmanager
def prepare_weights(files: Sequence[Path], *, may_copy: bool) -> Iterator[bool]:
    """Context manager in which weights are loaded, into huge pages if the system has them.
    Yields True if they are to be read rather than mapped: they may be copied, there are huge
    pages, and all of `files` together fit."""
    with hook_buffers(_advise) as can_advise:
        if not (may_copy and can_advise and _gives_huge_pages()):
            yield False
            return
        with _lock_loading() as is_locked:
            copies = is_locked and fit_in_memory(files, available_memory_bytes())
            _log.debug("engine.weights copied=%s", copies)
            yield copies


def fit_in_memory(files: Sequence[Path], free_bytes: int) -> bool:
    """True if these models' files, with all their parts, leave enough free memory. A missing
    part is reported by the loader."""
    parts = [part for file in files for part in model_parts(file) if part.exists()]
    return sum(part.stat().st_size for part in parts) <= free_bytes * _SHARE


def _gives_huge_pages() -> bool:
    setting = read_kernel_file(_SETTING)
    return bool(setting) and "[never]" not in setting


def _advise(buffer: Buffer) -> None:
    first = -(-buffer.context // _HUGE) * _HUGE
    last = (buffer.context + buffer.size) // _HUGE * _HUGE
    if first < last and ADVISE is not None and ADVISE(first, last - first, mmap.MADV_HUGEPAGE):
        _log.debug("engine.no_huge_pages bytes=%d", last - first)


@contextmanager
def _lock_loading() -> Iterator[bool]:
    """Locks: yields True if no other engine of this user loads. Otherwise the free memory would
    include what that engine is about to use. The lock is a socket name that only one process can
    bind; it is released when the process ends."""
    give_up_at = time.monotonic() + _WAIT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        while not (is_locked := bind_name(lock, _LOCK)) and time.monotonic() < give_up_at:
            time.sleep(_POLL_INTERVAL_S)
        yield is_locked
