"""Parent's side of the child process (`reader`) that reads one file."""

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

from llm_backend.child_process import EXTERNAL_SIGNALS, run_reader
from llm_backend.extraction.errors import ExtractionLimitExceeded, ReaderKilled, UnreadableFile
from llm_backend.extraction.formats import Format
from llm_backend.extraction.reader import READ, TOO_MUCH, UNREADABLE
from llm_backend.operating_system import PROC, is_linux, read_kernel_file

_POLL_INTERVAL_S = 0.02  # minimum interval between polls of the processor time


@dataclass(frozen=True, kw_only=True)
class ExtractionLimits:
    """Bounds on reading one file, and on the number of concurrent child processes.

    A file that is not read within `slice_s` of processor time is long. One child process is
    always reserved for short files.
    """

    timeout_s: float = 60
    slice_s: float = 1
    memory_bytes: int = 1024 * 1024 * 1024
    text_bytes: int = 20 * 1024 * 1024
    processes: int = 2

    def __post_init__(self) -> None:
        if self.processes < 2:
            raise ValueError(
                f"processes is {self.processes}; it must be at least 2, one of them for short files"
            )


class ReaderProcess:
    """A running child process."""

    def __init__(self, output: asyncio.Task[bytes], process: asyncio.subprocess.Process) -> None:
        self._output = output
        self._process = process
        self._started_s = time.monotonic()

    async def ends_within(self, seconds: float) -> bool:
        """Waits until the process ends, at most until `seconds` since its start. Returns True if it
        ended."""
        await asyncio.wait([self._output], timeout=self._started_s + seconds - time.monotonic())
        return self._output.done()

    async def ends_within_slice(self, seconds: float) -> bool:
        """Waits until the process ends, or has used `seconds` of processor time, which does not
        depend on the load of the machine. Returns True if it ended."""
        while not self._output.done():
            remaining_s = seconds - self._processor_s()
            if remaining_s <= 0:
                return False
            await asyncio.wait([self._output], timeout=max(remaining_s, _POLL_INTERVAL_S))
        return True

    def _processor_s(self) -> float:
        """Returns the processor time of the process; outside of Linux, the time since its start."""
        if not is_linux():
            return time.monotonic() - self._started_s
        stat = read_kernel_file(PROC / str(self._process.pid) / "stat")
        if not stat:  # it has just ended
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def text(self) -> str:
        """Waits for the file's text. Raises `ExtractionError`, `ReaderKilled`."""
        output, code = await self._output, self._process.returncode
        if code == READ:
            return output.decode()
        if code == UNREADABLE:
            raise UnreadableFile(output.decode())
        if code == TOO_MUCH:
            raise ExtractionLimitExceeded(output.decode())
        if code == -signal.SIGXCPU:
            raise ExtractionLimitExceeded("Reading the file exceeds its time limit.")
        if code in EXTERNAL_SIGNALS:
            raise ReaderKilled("The process that read the file was killed; try again.")
        raise UnreadableFile("The file is damaged, or reading it exceeds a limit.")


@asynccontextmanager
async def start_reader(
    file: IO[bytes], format: Format, limits: ExtractionLimits
) -> AsyncIterator[ReaderProcess]:
    """Starts a child process that reads the file from its beginning, and kills it at the end."""
    bounds = (round(limits.timeout_s) + 1, limits.memory_bytes, limits.text_bytes)
    async with run_reader(
        *("llm_backend.extraction.reader", format.value, *bounds), file=file, stderr=DEVNULL
    ) as process:
        output = asyncio.create_task(_output(process))
        try:
            yield ReaderProcess(output, process)
        finally:
            output.cancel()


async def _output(process: asyncio.subprocess.Process) -> bytes:
    output, _ = await process.communicate()
    return output
