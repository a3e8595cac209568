"""Functions that only Linux or glibc has, and their substitutes on other systems.

The server runs on Linux, on x86-64. Tests run the substitutes with fakes; the server was never run
on macOS. On ARM only the compiled sampler was run, in an emulator: it chooses the same tokens.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

PROC = Path("/proc")
SYS = Path("/sys")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def is_linux() -> bool:
    """Returns True on Linux."""
    return sys.platform == "linux"


def read_kernel_file(path: Path) -> str:
    """Returns the text of a file of /proc or /sys; an empty one if there is no such file, or no
    permission to read it."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@cache
def c_library() -> ctypes.CDLL:
    """Returns the C library of this process."""
    return ctypes.CDLL(None)


def c_function(name: str) -> Any:  # Any: a foreign function
    """Returns a function of the C library; None if the library lacks it, as others than glibc
    may."""
    return getattr(c_library(), name, None)


@contextmanager
def memory_file(name: str) -> Iterator[tuple[IO[bytes], Path]]:
    """Yields an empty file and its path while the context is open: in memory on Linux, on the disk
    elsewhere."""
    if is_linux():
        with os.fdopen(os.memfd_create(name), "wb") as file:
            yield file, PROC / "self" / "fd" / str(file.fileno())
    else:
        with tempfile.NamedTemporaryFile(suffix=f".{name}") as named:
            yield named.file, Path(named.name)


def usable_cores() -> int:
    """Returns the number of cores that this process may use; of all cores if that is unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def die_with_parent() -> None:
    """On Linux, makes the kernel kill this process when its parent dies (`PR_SET_PDEATHSIG`).
    Elsewhere the process ends when the connection to its parent is closed."""
    if is_linux():
        c_function("prctl")(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_resources(cpu_s: int, memory_bytes: int) -> None:
    """Limits processor time and memory of this process, and disables its core dumps. Memory is
    limited on Linux only: other systems may refuse that."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if is_linux():
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def bind_name(lock: socket.socket, name: str) -> bool:
    """Binds a Unix socket to an abstract name, which one process can hold at a time. Returns False
    if another one holds it. Only Linux has such names: elsewhere this returns True and excludes
    nothing."""
    if not is_linux():
        return True
    try:
        lock.bind(f"\0{name}")
    except OSError:
        return False
    return True
