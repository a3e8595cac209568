"""A served tree of processes that can be killed one by one, and is started again at its address."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.voice import PROGRAM

__all__ = ["Process", "Tree"]

_KINDS = {
    b"llm_backend.engine.process.worker": "engine",
    b"llm_backend.server.api_process": "api",
    b"llm_backend.extraction.reader": "reader",
    b"llm_backend.search.embedded.optimizer": "optimizer",
    b"llm_backend.backends.recordings.audio_reader": "reader",
    PROGRAM.encode(): "voice",
}
_GONE_S = 60.0  # for all processes of a tree whose parent has died
_STOP_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of the tree; `kind` is `parent` for the one that was started."""

    pid: int
    kind: str


@dataclass(kw_only=True)
class Tree:
    """The server as the sessions of its processes, so that those that outlive their parents are
    found, whatever their environment is."""

    folder: Path
    environment: Mapping[str, str]
    flags: Sequence[str]
    port: int = field(default_factory=lambda: _free_port())
    starts: int = 0
    _sessions: set[int] = field(default_factory=set)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Base address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Log of all its processes."""
        return self.folder / "server.log"

    @property
    def is_alive(self) -> bool:
        """True if the parent is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self, processes: int) -> None:
        """Starts the tree with this number of API processes; does not wait."""
        scratch = self.folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "llm_backend", "serve", "--port", str(self.port),
                   "--data-dir", str(self.folder / "data"), "--processes", str(processes),
                   *self.flags]  # fmt: skip
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LLM_BACKEND_", "OPENAI_", "LLAMA_", "DATABASE_URL"))
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
                env={**inherited, **self.environment, "TMPDIR": str(scratch)},
            )  # fmt: skip
        self.starts += 1
        self._sessions = {self._process.pid}

    def processes(self) -> list[Process]:
        """All that live, the parent too; `other` is none that the server should have."""
        assert self._process is not None, "started"
        found = _stats()
        mark = str(self.folder).encode()
        ours = {
            pid for pid, stat in found.items() if stat.session in self._sessions or stat.has(mark)
        }
        while more := {pid for pid, stat in found.items() if stat.parent in ours} - ours:
            ours |= more
        ours -= _own(found)
        # Those that are empty are forgotten: their numbers may be another's the next time.
        self._sessions = {found[pid].session for pid in ours}
        return [_process(pid, self._process.pid) for pid in sorted(ours)]

    def stop(self) -> None:
        """Ends it as a service manager would. Raises `AssertionError` if that takes too long, and
        for processes that are left."""
        assert self._process is not None, "started"
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the server did not end within {_STOP_S:g} s") from None
        assert status in (0, -signal.SIGTERM), f"the server ended with {status}"
        self.wait_gone()

    def wait_ended(self) -> None:
        """Returns when the parent has ended."""
        assert self._process is not None, "started"
        self._process.wait(_STOP_S)

    def wait_gone(self) -> None:
        """Returns when no process of it is left. Raises `AssertionError` for those that stay."""
        assert self._process is not None, "started"
        self._process.wait(_STOP_S)
        deadline = time.monotonic() + _GONE_S
        while left := self.processes():
            if time.monotonic() > deadline:
                told = [f"{one.kind} {one.pid}" for one in left]
                self.end()
                raise AssertionError(f"{told} outlived their parent by {_GONE_S:g} s")
            time.sleep(0.05)

    def end(self) -> None:
        """Kills what is left of it."""
        if self._process is not None:
            for process in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            self._process.wait(_STOP_S)


@dataclass(frozen=True, kw_only=True)
class _Stat:
    """A living process as the system tells it."""

    pid: int
    parent: int
    session: int

    def has(self, mark: bytes) -> bool:
        """True if its environment contains the mark."""
        try:
            return mark in Path(f"/proc/{self.pid}/environ").read_bytes()
        except OSError:
            return False


def _process(pid: int, parent: int) -> Process:
    if pid == parent:
        return Process(pid=pid, kind="parent")
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        for name, kind in _KINDS.items():
            if name in command:
                return Process(pid=pid, kind=kind)
    return Process(pid=pid, kind="other")


def _stats() -> dict[int, _Stat]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(folder.name)
            state, parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                found[pid] = _Stat(pid=pid, parent=int(parent), session=int(session))
    return found


def _own(found: Mapping[int, _Stat]) -> set[int]:
    """This process and what it was started by, with their sessions: never taken for the tree's."""
    session = os.getsid(0)
    ancestors = {pid for pid, stat in found.items() if stat.session == session}
    pid = os.getpid()
    while pid in found:
        ancestors.add(pid)
        pid = found[pid].parent
    return ancestors


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
