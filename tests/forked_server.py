"""Starts servers as forks of one process that has imported the package: imports are most of the
processor time of a start, and the tests start some two hundred servers.

`start` gets a server from that process, which `python -m tests.forked_server` is and which ends
with the process that started it. A fork has arguments, environment, folder and streams of its own,
as a new process has; only its command line in `/proc` and its import path are those of the process
that forked it. So a program whose imports a variable changes must be started anew.
"""

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

_REQUEST_BYTES = 1 << 20
_POLL_S = 0.01


class ForkedProcess:
    """A fork: the part of `subprocess.Popen` that tests use. `stdout` is a pipe."""

    def __init__(self, pid: int, reports: socket.socket, stdout: IO[str]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._reports = reports
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Returns the exit status, negative for a signal; None if the process runs."""
        with self._lock:
            if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
                self.returncode = int(_line(self._reports))
                self._reports.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit status once the process has ended. Raises `TimeoutExpired`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("llm-backend serve", timeout or 0)
            time.sleep(_POLL_S)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str], *, stderr: IO[str], environment: Mapping[str, str], folder: Path
) -> ForkedProcess:
    """Starts `llm-backend` with these arguments."""
    reading, writing = os.pipe()
    reports, theirs = socket.socketpair()
    request = json.dumps(
        {"arguments": arguments, "environment": environment, "folder": str(folder)}
    )
    with theirs:
        _send_request(request.encode(), [writing, stderr.fileno(), theirs.fileno()])
    os.close(writing)
    pid = int(_line(reports))
    return ForkedProcess(pid, reports, os.fdopen(reading))


def _line(reports: socket.socket) -> str:
    """Reads one line, which is sent whole."""
    text = b""
    while not text.endswith(b"\n"):
        byte = reports.recv(1)
        assert byte, "the process that forks has ended"
        text += byte
    return text.decode()


@functools.cache
def _forking_process() -> socket.socket:
    """Starts the process that forks; it ends when this one closes the socket."""
    requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_server", str(theirs.fileno())],
            cwd=Path(__file__).parents[1],
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        requests.close()
        process.wait()

    atexit.register(end)
    return requests


_lock = threading.Lock()


def _send_request(request: bytes, descriptors: Sequence[int]) -> None:
    with _lock:
        socket.send_fds(_forking_process(), [request], descriptors)


def main(requests: socket.socket) -> None:
    """Forks a server for each request, and reports its process id and later its exit status."""
    import llm_backend.cli.program
    import llm_backend.server  # noqa: F401 # imported for the forks

    gc.collect()
    gc.freeze()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([requests.fileno(), reading], [], [])[0]
        if reading in ready:
            os.read(reading, 1024)
            _report_exits(running)
        if requests.fileno() in ready:
            request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
            if not request:
                return
            stdout, stderr, reports = descriptors
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (requests, *running.values()):
                    other.close()
                for number in (reading, writing, reports):
                    os.close(number)
                _run(json.loads(request), stdout, stderr)
            os.close(stdout)
            os.close(stderr)
            running[pid] = socket.socket(fileno=reports)
            running[pid].sendall(f"{pid}\n".encode())


def _report_exits(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as reports:
            reports.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(request: dict[str, object], stdout: int, stderr: int) -> NoReturn:
    """Runs the program in a fork."""
    from llm_backend.cli import main as run_program

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["llm-backend", *request["arguments"]]
    run_program()
    sys.exit()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
