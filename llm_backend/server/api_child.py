"""Parent's side of one API process: starts it, checks that it answers (heartbeat), ends it."""

import asyncio
import contextlib
import signal
import socket
import sys
from pathlib import Path
from typing import Self

from llm_backend.engine.process.exit_status import describe_exit
from llm_backend.ipc import MessageConnection
from llm_backend.metrics import METRICS_FOLDER_NAME
from llm_backend.server.process_messages import (
    PARENT_CHANNEL,
    Drain,
    ParentMessage,
    Ping,
    ProcessReply,
    Serving,
    Start,
    StartFailed,
    Stop,
)
from llm_backend.settings import Settings, environment_with, settings_as_json

_PINGS_PER_TIMEOUT = 4  # a hang is noticed a quarter of the timeout late at most


class ApiChild:
    """A process that runs `llm_backend.server.api_process`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        connection: MessageConnection[ProcessReply, ParentMessage],
    ) -> None:
        self._process = process
        self._connection = connection
        self.requires_key = False  # True if it serves and its requests need a key
        self._is_serving = False
        self._is_ending = False

    @classmethod
    async def start(
        cls,
        settings: Settings,
        listener: socket.socket,
        shared: Path,
        config_file: Path | None = None,
    ) -> Self:
        """Starts a process, in a session of its own: Ctrl-C in the terminal must not reach it. Its
        hints name `config_file`, from which the settings come.

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
        connection: MessageConnection[ProcessReply, ParentMessage]
        connection = await MessageConnection.open(parent_end, PARENT_CHANNEL)
        connection.send(
            Start(
                settings=settings_as_json(settings),
                shared=str(shared),
                config_file=None if config_file is None else str(config_file),
            )
        )
        return cls(process, connection)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait_until_serving(self) -> str | None:
        """Waits for the start; returns the reason of a failure, or None once the process serves."""
        match await self._connection.receive():
            case StartFailed(reason=reason):
                return reason
            case Serving(requires_key=requires_key):
                self._is_serving, self.requires_key = True, requires_key
                return None
            case _:
                return f"An API process {await self.wait_for_exit()} before it served."

    async def wait_for_exit(self) -> str:
        """Waits for the exit and describes it."""
        status = await self._process.wait()
        self._connection.close()
        return describe_exit(status)

    async def wait_for_hang(self, timeout_s: float) -> None:
        """Sends heartbeats. Returns once a ping is unanswered for `timeout_s`; never if the process
        is ending."""
        is_alive = True
        while is_alive:
            await asyncio.sleep(timeout_s / _PINGS_PER_TIMEOUT)
            is_alive = await self._answers_ping(timeout_s)

    async def _answers_ping(self, timeout_s: float) -> bool:
        if self._is_ending:
            return True  # it may take long to end
        self._connection.send(Ping())
        try:
            async with asyncio.timeout(timeout_s):
                if await self._connection.receive() is None:
                    await self._process.wait()  # it is exiting
        except TimeoutError:
            return self._is_ending
        return True

    def drain(self) -> None:
        """Asks it to stop after the delay in which load balancers notice that it is not ready."""
        self._send_end(Drain())

    def stop(self) -> None:
        """Asks it to end after its running answers or their grace period."""
        self._send_end(Stop())

    def _send_end(self, message: Drain | Stop) -> None:
        self._is_ending = True
        if self._is_serving:
            self._connection.send(message)
        else:  # it does not listen yet
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process is alive."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
