"""Ports for programs that are told where to listen, and cannot say where they do."""

import itertools
import os
import socket

__all__ = ["free_port"]

# Below those that the system gives to whatever connects, which could take one at any moment; each
# process begins elsewhere.
_BEGIN, _END = 12_000, 32_000
_candidates = itertools.cycle(range(_BEGIN, _END))
for _ in range(os.getpid() * 61 % (_END - _BEGIN)):
    next(_candidates)


def free_port() -> int:
    """A port of the loopback interface on which nothing listens."""
    for port in itertools.islice(_candidates, _END - _BEGIN):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("Every port is taken.")
