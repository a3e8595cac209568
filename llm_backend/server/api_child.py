"""Parent's side of one API process: start it, check that it answers (heartbeat), end it."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Self

from llm_backend.engine.process.exit_status import describe_exit
from llm_backend.metrics import METRICS_FOLDER_NAME
from llm_backend.settings import Settings, environment_with, settings_as_json

PING = b"ping\n"
PONG = b"pong\n"
STOP = b"stop\n"  # a closed control socket without this means to drain
_PINGS_PER_TIMEOUT = 4  # a hang is noticed at most a quarter later
_MESSAGE_BYTES = 1 << 20  # the longest message


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
        self.wants_key = False  # True if it serves and its requests need a key
        self._is_serving = False
        self._is_ending = False

    @classmethod
    async def start(cls, settings: Settings, listener: socket.socket, shared: Path) -> Self:
        """Starts a process, in a session of its own: Ctrl-C in the terminal must not reach it.

        Raises `OSError` if no process can be started.
        """
        parent_end, child_end = socket.socketpair()
        inherited = [listener.fileno(), child_end.fileno()]
        with contextlib.ExitStack() as on_failure, child_end:
            on_failure.enter_context(parent_end)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llm_backend.server.api_process", *map(str, inherited)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,
                env=environment_with({METRICS_FOLDER_NAME: str(shared)}),
            )
            on_failure.pop_all()
        reader, writer = await asyncio.open_unix_connection(sock=parent_end, limit=_MESSAGE_BYTES)
        message = {"settings": settings_as_json(settings), "shared": str(shared)}
        writer.write(json.dumps(message).encode() + b"\n")
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait_until_serving(self) -> str | None:
        """Waits for the start; returns the reason of a failure, or None once the process serves."""
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        if line:
            status: str | bool = json.loads(line)
            if isinstance(status, str):
                return status
            self._is_serving, self.wants_key = True, status
            return None
        return f"An API process {await self.wait_for_exit()} before it served."

    async def wait_for_exit(self) -> str:
        """Waits for the exit and describes it."""
        status = await self._process.wait()
        self._writer.close()
        return describe_exit(status)

    async def wait_for_hang(self, timeout_s: float) -> None:
        """Sends heartbeats. Returns once a ping is unanswered for `timeout_s`; never if the process
        is ending."""
        is_alive = True
        while is_alive:
            await asyncio.sleep(timeout_s / _PINGS_PER_TIMEOUT)
            is_alive = await self._answers_ping(timeout_s)

    async def _answers_ping(self, timeout_s: float) -> bool:
        if self._is_ending or self._writer.is_closing():
            # It may take long to end; if it has exited, `wait_for_exit` reports that.
            return True
        self._writer.write(PING)
        try:
            async with asyncio.timeout(timeout_s):
                if not await self._reader.readline():
                    await self._process.wait()  # it is exiting
        except TimeoutError:
            return self._is_ending
        except OSError:
            return True  # it has exited, which `wait_for_exit` reports
        return True

    def drain(self) -> None:
        """Asks it to stop after the delay in which load balancers notice that it is not ready."""
        self._is_ending = True
        if not self._is_serving:  # it does not listen yet
            self.signal(signal.SIGTERM)
        if not self._writer.is_closing():  # closed: it has exited
            with contextlib.suppress(OSError):  # it is exiting
                self._writer.write_eof()

    def stop(self) -> None:
        """Asks it to end after its running answers or their grace period."""
        if self._is_serving and not self._writer.is_closing():
            self._writer.write(STOP)
        self.drain()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process is alive."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
