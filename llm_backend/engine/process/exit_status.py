"""Exit status of a process: its description, and whether the process was killed from outside."""

import signal

from llm_backend.operating_system import PROC, read_kernel_file

# Signals from operators, other programs or the kernel, never from a fault of the code.
_FROM_OUTSIDE = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})


def describe_exit(status: int) -> str:
    """Describes an exit status; a number below zero is the negative signal that ended the
    process."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def has_crashed(status: int) -> bool:
    """True if the process was ended by a signal that a fault of its own code raises."""
    return status < 0 and status not in _FROM_OUTSIDE


def was_killed_from_outside(status: int, oom_kills_before: int) -> bool:
    """True if a signal from outside ended the process, and the kernel has killed no process for
    want of memory since `oom_kills_before` was read. After such a kill the cause is unknown."""
    return status in _FROM_OUTSIDE and oom_kills() == oom_kills_before


def oom_kills() -> int:
    """The number of processes that the kernel has killed for want of memory; 0 if it is unknown."""
    lines = read_kernel_file(PROC / "vmstat").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
