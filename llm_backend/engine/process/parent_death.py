"""Parent death signal: a child process that does not outlive its parent."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """On Linux, make the kernel kill this process when its parent dies (`PR_SET_PDEATHSIG`).
    Elsewhere the process ends when the connection to its parent is closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
