"""Remote engine: uses the worker of another process, and reconnects after a crash."""

import asyncio
import time

from llm_backend.engine.config import EngineConfig
from llm_backend.engine.messages import Ready
from llm_backend.engine.process.engine_connection import CrashRecord, EngineConnection
from llm_backend.engine.process.lifecycle import EngineLifecycle, EngineState
from llm_backend.engine.process.restart_policy import grown_delay_s

__all__ = ["RemoteEngine"]

_LOOKS_EVERY_S = 1.0  # polling for the next start of an engine that has failed
_CLOSED_DOOR = (ConnectionRefusedError, FileNotFoundError)


class RemoteEngine(EngineLifecycle):
    """Keeps a connection to the worker at the socket path `config.door` between `start` and
    `close`.

    The worker's owner restarts it; a remote process only waits for the next one. It refuses
    requests while the owner, after too many crashes, keeps the socket closed.
    """

    def __init__(self, config: EngineConfig) -> None:
        assert config.door is not None, "a guest needs a door"
        super().__init__(config)
        self._door = config.door
        self._blamed: list[CrashRecord] = []  # for the end of the last connection

    def start(self) -> None:
        """Begin to connect, without waiting."""
        if self._task is None:
            self._reason = "The engine is loading its model."
            self._task = asyncio.create_task(self._keep_connected(), name="engine-guest")
            self._task.add_done_callback(self._task_ended)

    async def close(self) -> None:
        """Disconnect; the worker cancels the requests of this process."""
        self._become(EngineState.CLOSED, "The engine is closed.")
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            try:
                was_ready = await self._visit()
            except _CLOSED_DOOR:
                self._fail()
                await asyncio.sleep(_LOOKS_EVERY_S)
                continue
            except OSError:  # the backlog is full, or no descriptor is left at the moment
                was_ready = False
            failures = 0 if was_ready else failures + 1
            self._delay_s = grown_delay_s(
                self._config.restart_delay_s, failures + 1, self._config.restart_delay_limit_s
            )
            await asyncio.sleep(self._delay_s)

    def _fail(self) -> None:
        """Refuse requests while the owner accepts no connection, between two starts of a failed
        engine."""
        self._next_start_at = time.monotonic() + self._config.restart_pause_s
        reason = "The engine has failed; the log of the process that owns it says why."
        self._become(EngineState.FAILED, reason)

    async def _visit(self) -> bool:
        """Run one connection from its start to its end. True if the worker was ready in it."""
        came_at = time.monotonic()
        link = await EngineConnection.to(self._door)
        try:
            first = await link.first()
            if not isinstance(first, Ready):
                return False
            self._start_s = time.monotonic() - came_at
            self._welcome(first, link)
            await link.gone()
            return True
        finally:
            self._link = None
            if self.state is EngineState.READY:
                self._blamed = link.poison_requests()
                self.poison_requests.blame(self._blamed, self.pid or 0)
                self._become(EngineState.RESTARTING, "The engine died and is being restarted.")
            link.lose(self._down())

    def _welcome(self, ready: Ready, link: EngineConnection) -> None:
        if ready.pid == self.pid:  # only the connection had ended, the worker has not
            for suspicion in self._blamed:
                self.poison_requests.clear(suspicion.command)
        self._blamed = []
        self.info, self.pid = ready.info, ready.pid
        self._link = link
        self._become(EngineState.READY, "")
