"""How a process has ended: in words, and whether it was ended from outside."""

import signal
from pathlib import Path

__all__ = ["describe_exit", "oom_kills", "was_killed_from_outside"]

# Signals that come from people, other programs or the kernel, and never from a fault of the code.
_FROM_OUTSIDE = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})


def describe_exit(status: int) -> str:
    """What an exit status says: a number below zero is the signal's that ended the process."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def was_killed_from_outside(status: int, oom_kills_before: int) -> bool:
    """Whether an exit status is that of a process that another one killed, and that might have gone
    on; `oom_kills_before` is what `oom_kills` said when it began. A process that the kernel killed
    because memory had run out may be what had used it."""
    return status in _FROM_OUTSIDE and oom_kills() == oom_kills_before


def oom_kills() -> int:
    """The number of processes that the kernel has killed for want of memory; 0 where it does not
    tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
