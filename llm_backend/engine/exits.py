"""How a process has ended, in words."""

import signal

__all__ = ["how_ended"]


def how_ended(status: int) -> str:
    """What an exit status says: a number below zero is the signal's that ended the process."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
