"""What this machine has in memory, or this process may use of it if that is less."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["available_memory_bytes", "machine_memory_bytes"]

_MACHINE = "/proc/meminfo"


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Where a control group tells its limit, and which line of its figures is what it holds that
    could not be read again from a file."""

    limit: str
    figures: str
    held: str


_GROUPS = (
    _Group(
        limit="/sys/fs/cgroup/memory.max",
        figures="/sys/fs/cgroup/memory.stat",
        held="anon",
    ),
    _Group(
        limit="/sys/fs/cgroup/memory/memory.limit_in_bytes",
        figures="/sys/fs/cgroup/memory/memory.stat",
        held="total_rss",
    ),
)


def machine_memory_bytes() -> int:
    """All of it, free or not."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *(limit for limit, _ in _limits())])


def available_memory_bytes() -> int:
    """What could be taken now without anybody being swapped out or killed. 0 where the system does
    not tell."""
    free = _figure(_MACHINE, "MemAvailable:") * 1024
    return max(0, min([free, *(limit - held for limit, held in _limits())]))


def _limits() -> list[tuple[int, int]]:
    """The limits of this process's control groups, and what is held of each."""
    limits = []
    for group in _GROUPS:
        limit = _text(group.limit).strip()
        if limit.isdecimal():  # "max" is none
            limits.append((int(limit), _figure(group.figures, group.held)))
    return limits


def _figure(file: str, name: str) -> int:
    """The number behind a name; 0 where there is none."""
    for line in _text(file).splitlines():
        first, _, rest = line.partition(" ")
        if first == name:
            return int(rest.split()[0])
    return 0


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:  # another system, or no such control group here
        return ""
