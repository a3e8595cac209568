"""Unix socket at which other processes connect to a worker.

It is opened once by the process that owns the worker and inherited by one worker after the other: a
client that connects between two workers waits. So it lives as long as the engine does. A refused
connection means that the engine is closed or has failed, until it is started again.
"""

import contextlib
import socket
from pathlib import Path

_BACKLOG = 64  # connections that wait for a worker


def open_socket(path: Path) -> socket.socket:
    """Listen at `path`; the mode of its folder must keep other users out."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def close_socket(sock: socket.socket) -> None:
    """Closes the socket: waiting and later connections are refused."""
    with contextlib.suppress(OSError):  # its folder was removed already
        Path(sock.getsockname()).unlink()
    sock.close()
