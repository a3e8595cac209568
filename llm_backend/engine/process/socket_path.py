"""The Unix socket at which other processes become guests of a worker.

It is opened once by the process that owns the worker and inherited by one worker after the other:
who connects while there is none, waits. So it lives as long as the engine does, and that nobody
listens any more says that the engine is closed or has failed, until it is started again.
"""

import contextlib
import socket
from pathlib import Path

__all__ = ["PATH_BYTES", "close_socket", "open_socket"]

PATH_BYTES = 103  # what every Unix has room for in a socket's address; Linux has 107
_BACKLOG = 64  # guests that wait for a worker


def open_socket(path: Path) -> socket.socket:
    """Listen at `path`, whose folder must keep others out."""
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(str(path))
        door.listen(_BACKLOG)
    except OSError:
        door.close()
        raise
    return door


def close_socket(door: socket.socket) -> None:
    """Guests that wait are turned away, and so is everybody who comes later."""
    with contextlib.suppress(OSError):  # its folder is gone already
        Path(door.getsockname()).unlink()
    door.close()
