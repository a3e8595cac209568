"""Total and available memory of this machine, bounded by the process's cgroup limits; amounts of
memory in words."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llm_backend.operating_system import PROC, SYS, read_kernel_file

_PROC = PROC
_GROUPS = SYS / "fs/cgroup"


@dataclass(frozen=True, kw_only=True)
class _Hierarchy:
    """Files of a cgroup hierarchy: its limits, and the lines of `memory.stat` with memory that is
    not reclaimable page cache."""

    folder: str
    limits: tuple[str, ...]
    used: tuple[str, ...]


_UNIFIED = _Hierarchy(folder="", limits=("memory.max", "memory.high"), used=("anon", "shmem"))
_MEMORY = _Hierarchy(
    folder="memory", limits=("memory.limit_in_bytes",), used=("total_rss", "total_shmem")
)


@dataclass(frozen=True, kw_only=True)
class _Bound:
    limit: int
    used: int


def machine_memory_bytes() -> int:
    """Returns the total memory in bytes."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *(bound.limit for bound in _bounds())])


def available_memory_bytes() -> int:
    """Returns the bytes that can be allocated now without swapping or an OOM kill; 0 if the system
    does not report it."""
    free = _read_numbers(_PROC / "meminfo").get("MemAvailable:", 0) * 1024
    return max(0, min([free, *(bound.limit - bound.used for bound in _bounds())]))


def format_size(size: int) -> str:
    """Formats a number of bytes of memory for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _bounds() -> Iterator[_Bound]:
    """Yields the bounds of this process's cgroups and their parents."""
    for line in read_kernel_file(_PROC / "self" / "cgroup").split("\n"):
        controllers, colon, group = line.partition(":")[2].partition(":")
        if not colon or (controllers and "memory" not in controllers.split(",")):
            continue
        hierarchy = _MEMORY if controllers else _UNIFIED
        own = PurePosixPath(group.lstrip("/"))
        for one in (own, *own.parents):  # in a container the root may be this process's own
            yield from _read_bound(_GROUPS / hierarchy.folder / one, hierarchy)


def _read_bound(folder: Path, hierarchy: _Hierarchy) -> Iterator[_Bound]:
    values = [read_kernel_file(folder / name).strip() for name in hierarchy.limits]
    limits = [int(limit) for limit in values if limit.isdecimal()]  # "max" is none
    if limits:
        numbers = _read_numbers(folder / "memory.stat")
        used = sum(numbers.get(name, 0) for name in hierarchy.used)
        yield _Bound(limit=min(limits), used=used)


def _read_numbers(file: Path) -> dict[str, int]:
    """Parses the numbers of a file by their names."""
    words = (line.split() for line in read_kernel_file(file).splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}
