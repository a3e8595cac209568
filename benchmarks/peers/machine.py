"""Load of other processes on the machine during a measurement (Linux: /proc)."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Use", "family", "spent_s", "use", "wait_until_quiet"]

_TICKS = os.sysconf("SC_CLK_TCK")
_QUIET, _LOOK_S = 0.1, 1.0


@dataclass(frozen=True, kw_only=True)
class Use:
    """Seconds of processor time up to a moment: everybody's, and that of the processes that take
    part.
    """

    at_s: float
    all_s: float
    ours_s: float

    def others_since(self, before: "Use") -> float:
        """The share of the machine that others had since then."""
        theirs = (self.all_s - before.all_s) - (self.ours_s - before.ours_s)
        cores = os.cpu_count() or 1
        return max(0.0, theirs) / max(1e-9, (self.at_s - before.at_s) * cores)


def use(*pids: int) -> Use:
    """The use up to now; the given processes, this one and its ended children do not count as
    others."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    ended = os.times()  # children that have ended, and were waited for
    ours = sum(map(spent_s, {os.getpid(), *pids})) + ended.children_user + ended.children_system
    return Use(at_s=time.monotonic(), all_s=(sum(fields) - idle) / _TICKS, ours_s=ours)


def wait_until_quiet(limit_s: float) -> None:
    """Return when other processes use little of the machine, or after `limit_s`."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        before = use()
        time.sleep(_LOOK_S)
        if use().others_since(before) < _QUIET:
            return


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    members = [pid]
    for member in members:
        members += children.get(member, [])
    return members


def spent_s(pid: int) -> float:
    """Processor time of a process, in user and kernel mode; 0 if it is gone."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / _TICKS if stat else 0.0


def _stat(pid: int) -> list[str]:
    """The fields after the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
