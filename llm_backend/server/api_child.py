"""Parent's side of one API process: start it, check that it answers, end it."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Self

from llm_backend.engine.process.exit_status import describe_exit
from llm_backend.settings import Settings, environment_with, settings_as_json
from llm_backend.telemetry import METRICS_FOLDER_NAME

__all__ = ["ASK", "HERE", "STOP", "ApiChild"]

ASK = b"there\n"
HERE = b"here\n"
STOP = b"stop\n"  # a closed control socket without this means to leave
_LOOKS = 4  # checks within the patience: a hang is noticed at most a quarter later
_WORD_BYTES = 1 << 20  # the longest message


class ApiChild:
    """A process that runs `llm_backend.server.api_process`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._serves = False
        self._is_told_to_end = False

    @classmethod
    async def begin(cls, settings: Settings, listener: socket.socket, shared: Path) -> Self:
        """Starts a process, in a session of its own: Ctrl-C in the terminal must not reach it.

        Raises `OSError` if no process can be started.
        """
        ours, theirs = socket.socketpair()
        inherited = [listener.fileno(), theirs.fileno()]
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.enter_context(ours)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llm_backend.server.api_process", *map(str, inherited)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,
                env=environment_with({METRICS_FOLDER_NAME: str(shared)}),
            )
            on_failure.pop_all()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_WORD_BYTES)
        told = {"settings": settings_as_json(settings), "shared": str(shared)}
        writer.write(json.dumps(told).encode() + b"\n")
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def cannot_serve(self) -> str | None:
        """Waits for the start; returns the reason of a failure, or None once the process serves."""
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        if line:
            reason: str | None = json.loads(line)
            self._serves = reason is None
            return reason
        return f"An API process {await self.ended()} before it served."

    async def ended(self) -> str:
        """Waits for the exit and describes it."""
        status = await self._process.wait()
        self._writer.close()
        return describe_exit(status)

    async def hung(self, patience_s: float) -> None:
        """Returns after a ping has been unanswered for `patience_s`; never once the process is told
        to end."""
        is_there = True
        while is_there:
            await asyncio.sleep(patience_s / _LOOKS)
            is_there = await self._is_there(patience_s)

    async def _is_there(self, patience_s: float) -> bool:
        if self._is_told_to_end or self._writer.is_closing():
            # It may take long to end; if it has exited, `ended` reports that.
            return True
        self._writer.write(ASK)
        try:
            async with asyncio.timeout(patience_s):
                if not await self._reader.readline():
                    await self._process.wait()  # it is exiting
        except TimeoutError:
            return self._is_told_to_end
        except OSError:
            return True  # it has exited, which `ended` reports
        return True

    def leave(self) -> None:
        """Asks it to stop after the delay in which load balancers notice that it is not ready."""
        self._is_told_to_end = True
        if not self._serves:  # it does not listen yet
            self.signal(signal.SIGTERM)
        if not self._writer.is_closing():  # closed: it has exited
            with contextlib.suppress(OSError):  # it is exiting
                self._writer.write_eof()

    def stop(self) -> None:
        """Asks it to end after its running answers or their grace period."""
        if self._serves and not self._writer.is_closing():
            self._writer.write(STOP)
        self.leave()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process is alive."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
