"""Remote engine: uses the worker of another process, and reconnects after a crash."""

import asyncio
import time

from llm_backend.backoff import backoff_delay_s
from llm_backend.engine.config import EngineConfig
from llm_backend.engine.messages import Ready
from llm_backend.engine.process.engine_connection import EngineConnection
from llm_backend.engine.process.lifecycle import RESTARTING, EngineLifecycle, EngineState

_POLL_INTERVAL_S = 1.0  # between attempts to connect while the socket is closed
_SOCKET_CLOSED = (ConnectionRefusedError, FileNotFoundError)


class RemoteEngine(EngineLifecycle):
    """Keeps a connection to the worker at the socket path `config.socket_path` between `start` and
    `close`.

    The worker's owner restarts it; a remote process only waits for the next one. It refuses
    requests while the owner, after too many crashes, keeps the socket closed.
    """

    def __init__(self, config: EngineConfig) -> None:
        assert config.socket_path is not None, "a remote engine has a socket path"
        super().__init__(config)
        self._socket_path = config.socket_path

    def start(self) -> None:
        """Begins to connect, without waiting."""
        if self._task is None:
            self._reason = "The engine is loading its model."
            self._task = asyncio.create_task(self._keep_connected(), name="engine-remote")
            self._task.add_done_callback(self._handle_task_end)

    async def close(self) -> None:
        """Disconnects; the worker cancels the requests of this process."""
        self._set_state(EngineState.CLOSED, "The engine is closed.")
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            try:
                was_ready = await self._use_connection()
            except _SOCKET_CLOSED:
                self._fail()
                await asyncio.sleep(_POLL_INTERVAL_S)
                continue
            except OSError:  # the backlog is full, or no descriptor is left at the moment
                was_ready = False
            failures = 0 if was_ready else failures + 1
            self._delay_s = backoff_delay_s(
                self._config.restart_delay_s, failures + 1, self._config.restart_delay_limit_s
            )
            await asyncio.sleep(self._delay_s)

    def _fail(self) -> None:
        """Refuses requests: the owner accepts no connection while the engine has failed."""
        self._next_start_at = time.monotonic() + self._config.restart_pause_s
        reason = "The engine has failed; the log of the process that owns it says why."
        self._set_state(EngineState.FAILED, reason)

    async def _use_connection(self) -> bool:
        """Uses one connection until it ends. Returns True if the worker was ready."""
        started_at = time.monotonic()
        connection = await EngineConnection.connect(self._socket_path)
        try:
            first = await connection.first()
            if not isinstance(first, Ready):
                return False
            self._start_s = time.monotonic() - started_at
            self._set_ready(first, connection)
            await connection.wait_closed()
            return True
        finally:
            was_used, self._connection = self._connection is connection, None
            if was_used and self.state is not EngineState.CLOSED:
                self.poison_requests.record_crash(connection.crash_candidates(), self.pid or 0)
                self._set_state(EngineState.RESTARTING, RESTARTING)
            connection.fail_calls(self._down_error())

    def _set_ready(self, ready: Ready, connection: EngineConnection) -> None:
        if ready.pid == self.pid:  # the connection ended, but the worker did not crash
            self.poison_requests.withdraw_crash(ready.pid)
        self.info, self.pid = ready.info, ready.pid
        self._serve_by(connection)
