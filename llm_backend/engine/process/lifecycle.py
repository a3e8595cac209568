"""Lifecycle of an engine: its state, in the process that owns the worker and in others that use
it."""

import asyncio
import logging
import time
from enum import StrEnum

from llm_backend.engine.config import EngineConfig
from llm_backend.engine.errors import EngineDown, EngineStartError
from llm_backend.engine.messages import ModelInfo
from llm_backend.engine.process.engine_connection import EngineConnection
from llm_backend.engine.process.poison_requests import PoisonRequests, SharedPoisonRequests

_log = logging.getLogger(__name__)

RESTARTING = "The engine died and is being restarted."


class EngineState(StrEnum):
    """State of an engine. A failed engine is started again after a pause."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    CLOSED = "closed"


class EngineLifecycle:
    """An engine's state, and the connection to its worker while there is one."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._connection: EngineConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_decided = asyncio.Event()  # ready, failed or closed
        self._reason = "The engine has not been started."
        self._start_s = 1.0  # duration of the last start
        self._delay_s = 0.0  # before the next start
        self._next_start_at = 0.0  # of an engine that has failed
        self.state = EngineState.STARTING
        self.info: ModelInfo | None = None
        self.pid: int | None = None
        self.poison_requests = _poison_requests(config)

    def start(self) -> None:
        """Begins to start the worker or to connect to it, without waiting."""
        raise NotImplementedError

    async def close(self) -> None:
        """Ends; pending requests are lost."""
        raise NotImplementedError

    async def ready(self) -> ModelInfo:
        """Waits until the model is loaded, and returns its information. Raises `EngineStartError`
        if the engine fails or is closed."""
        await self._is_decided.wait()
        if self.state is EngineState.READY and self.info is not None:
            return self.info
        raise EngineStartError(self._reason, self._retry_after_s)

    def connection(self) -> EngineConnection:
        """The connection to a worker that is ready. Raises `EngineDown`."""
        if (
            self.state is EngineState.READY
            and self._connection is not None
            and self._connection.is_open
        ):
            return self._connection
        raise self._down_error()

    def _serve_by(self, connection: EngineConnection) -> None:
        """Serves requests by this connection. When it ends, the state changes immediately, so
        that a request with a further command waits for the restart instead of failing."""
        self._connection = connection
        self._set_state(EngineState.READY, "")
        connection.call_at_end(lambda: self._handle_connection_end(connection))

    def _handle_connection_end(self, connection: EngineConnection) -> None:
        if self.state is EngineState.READY and self._connection is connection:
            self._set_state(EngineState.RESTARTING, RESTARTING)

    def _set_state(self, state: EngineState, reason: str) -> None:
        self.state, self._reason = state, reason
        if state in (EngineState.STARTING, EngineState.RESTARTING):
            self._is_decided.clear()
        else:
            self._is_decided.set()

    @property
    def is_unsupervised(self) -> bool:
        """True if the task that keeps the engine alive has ended without a `close`: a defect,
        after which only another process can serve the model."""
        return self._task is not None and self._task.done() and self.state is not EngineState.CLOSED

    def _handle_task_end(self, task: asyncio.Task[None]) -> None:
        """Refuses requests if the task that keeps the engine alive has ended without a `close`."""
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            _log.critical("engine_abandoned", exc_info=error)
        if self.state is EngineState.CLOSED:
            return
        self._set_state(
            EngineState.FAILED, "The engine is not supervised any more; restart the server."
        )

    @property
    def _retry_after_s(self) -> float | None:
        """Seconds until the engine is expected to be ready; None for never."""
        if self.state is EngineState.CLOSED or self.is_unsupervised:
            return None
        delay_s = self._delay_s
        if self.state is EngineState.FAILED:
            delay_s = max(0.0, self._next_start_at - time.monotonic())
        return max(1.0, self._start_s + delay_s)

    def _down_error(self) -> EngineDown:
        # the reason is empty between the end of the connection and the next state
        return EngineDown(self._reason or RESTARTING, self._retry_after_s)


def _poison_requests(config: EngineConfig) -> PoisonRequests:
    limit, age_s = config.poison_requests_limit, config.poison_requests_age_s
    weight = config.quarantine_weight
    if config.socket_path is None:
        return PoisonRequests(limit=limit, quarantine_weight=weight, age_s=age_s)
    path = config.socket_path.with_suffix(".poison")
    return SharedPoisonRequests(path, limit=limit, quarantine_weight=weight, age_s=age_s)
