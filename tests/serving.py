"""Starts the real server as a user would, for tests that need one."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import forked_server
from tests.forked_server import ForkedProcess

PROGRAM = (sys.executable, "-m", "llm_backend")
START_TIMEOUT_S = 90.0
WITHOUT_MODEL = "neither a model nor an upstream"
# Settings with which results do not depend on what else a pass computes.
EXACT = {"LLM_BACKEND_FLASH_ATTENTION": "false", "LLM_BACKEND_CACHE_TYPE": "f32"}
# A request of a model's answer that goes on until it is stopped, and the setting it needs.
ENDLESS = {"LLM_BACKEND_CONTEXT_SHIFT_TOKENS": "1000000"}
WITHOUT_END = {"ignore_eos": True, "max_tokens": 1_000_000}
# The list of models must not depend on the programs of the machine; tests that speak name theirs.
NO_VOICE = {"LLM_BACKEND_VOICE_PROGRAM": "none"}


def children_of(pid: int, name: bytes) -> list[int]:
    """The process ids of the children of a process that have a name in their command lines."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if name in command_line(child)]


def command_line(pid: int | str) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server: where it answers, its process, and the file its log goes to."""

    address: str
    process: subprocess.Popen[str] | ForkedProcess
    log: Path

    @property
    def base_url(self) -> str:
        """Base URL for clients."""
        return f"{self.address}/v1"

    def workers(self) -> list[int]:
        """The process ids of its engine processes."""
        return children_of(self.process.pid, b"llm_backend.engine")

    def api_processes(self) -> list[int]:
        """The process ids of its API processes, where there are several."""
        return children_of(self.process.pid, b"llm_backend.server.api_process")

    def wait_ready(self) -> None:
        """Returns once a model can answer, or where nothing else is missing than one."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (ready := httpx.get(f"{self.address}/readyz", timeout=30)).status_code != 200:
            if WITHOUT_MODEL in ready.text:
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


@contextlib.contextmanager
def serve(
    data_dir: Path,
    *flags: str,
    environment: dict[str, str] | None = None,
    ready: bool = True,
    prefix: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    folder: Path | None = None,
    forks: bool = True,
) -> Iterator[Served]:
    """`llm-backend serve` on a free port, started in `folder`; answers are checked against the
    document. `prefix` is a program that becomes the one behind it, `program` another
    installation's. It is a fork of a process that has imported the package, unless one of these or
    the environment forbids that, or its start or memory are measured (without `forks`)."""
    log = data_dir / "server.log"
    data_dir.mkdir(parents=True, exist_ok=True)
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir),
                 "--response-validation", "enforce", *flags]  # fmt: skip
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLM_BACKEND_", "OPENAI_", "LLAMA_", "DATABASE_URL"))
    }
    variables = {**inherited, **NO_VOICE, **(environment or {})}
    process: subprocess.Popen[str] | ForkedProcess
    with log.open("a") as log_file:
        is_plain = not prefix and program == PROGRAM
        if not forks or not is_plain or any(map(_changes_imports, environment or {})):
            process = subprocess.Popen(
                [*prefix, *program, *arguments], stdout=subprocess.PIPE, stderr=log_file,
                text=True, cwd=folder, env=variables,
            )  # fmt: skip
        else:
            process = forked_server.start(
                arguments, stderr=log_file, environment=variables, folder=folder or Path.cwd()
            )
    try:
        served = Served(address=_address(process, log), process=process, log=log)
        if ready:
            served.wait_ready()
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _changes_imports(variable: str) -> bool:
    """True for a variable that only a new process heeds: of Python, the linker or the allocator."""
    return variable.startswith(("PYTHON", "LD_", "MALLOC_"))


def _address(process: subprocess.Popen[str] | ForkedProcess, log: Path) -> str:
    """The address that the server prints once it listens."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # closed at the end of the test
            for line in process.stdout:
                lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(queue.Empty):
            if found := re.search(r"Serving on (https?://\S+)", lines.get(timeout=0.2)):
                return found[1]
    raise AssertionError(f"The server did not start: {log.read_text()}")
